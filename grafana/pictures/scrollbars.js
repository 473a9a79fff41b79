// The package is CommonJS with an ES default; esbuild needs to be told which one it is.
import * as library from 'react-custom-scrollbars-2';

export const Scrollbars = library.Scrollbars ?? library.default?.Scrollbars ?? library.default;
export default Scrollbars;
