// Bundle the page that draws dashboards: node build.mjs, in a folder that has node_modules.
import * as esbuild from 'esbuild';
import path from 'node:path';

const scrollbars = {
  name: 'scrollbars',
  setup(build) {
    build.onResolve({ filter: /^react-custom-scrollbars-2$/ }, (args) =>
      args.importer.endsWith('scrollbars.js') ? null : { path: path.resolve('scrollbars.js') },
    );
  },
};

await esbuild.build({
  entryPoints: ['page.jsx'],
  bundle: true,
  minify: true,
  outfile: 'page.js',
  jsx: 'automatic',
  loader: { '.svg': 'dataurl', '.ttf': 'empty', '.woff': 'empty', '.woff2': 'empty' },
  define: { 'process.env.NODE_ENV': '"production"' },
  plugins: [scrollbars],
  logLevel: 'warning', format: 'esm',
});
