// Draw a dashboard's JSON with Grafana's own components, from a Prometheus on the same origin.
import 'uplot/dist/uPlot.min.css';
import { useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import {
  applyFieldOverrides, createTheme, DashboardCursorSync, dateTime, displayNameOverrideProcessor,
  EventBusSrv, FieldConfigOptionsRegistry, getFieldDisplayValues, identityOverrideProcessor,
  numberOverrideProcessor, renderMarkdown, standardTransformers, standardTransformersRegistry,
  ThemeContext, thresholdsOverrideProcessor, transformDataFrame, unitOverrideProcessor,
  valueMappingsOverrideProcessor,
} from '@grafana/data';
import { BigValue, GlobalStyles, PanelChrome, PanelContextProvider, Table, TimeSeries } from '@grafana/ui';
import { Heatmap, States } from './approximate.jsx';
import { ask } from './query.js';

const asked = new URLSearchParams(location.search);
const theme = createTheme({ colors: { mode: asked.get('theme') } });
const CELL = { width: (1600 - 32) / 24, height: 38 };

standardTransformersRegistry.setInit(() =>
  [standardTransformers.organizeFieldsTransformer, standardTransformers.orderFieldsTransformer,
    standardTransformers.renameFieldsTransformer, standardTransformers.filterFieldsByNameTransformer,
    standardTransformers.filterFieldsTransformer, standardTransformers.noopTransformer]
    .filter(Boolean)
    .map((found) => ({ id: found.id, name: found.name, transformation: found, editor: () => null })),
);

const STANDARD = {
  unit: unitOverrideProcessor, min: numberOverrideProcessor, max: numberOverrideProcessor,
  decimals: numberOverrideProcessor, displayName: displayNameOverrideProcessor,
  thresholds: thresholdsOverrideProcessor, mappings: valueMappingsOverrideProcessor,
  color: identityOverrideProcessor, noValue: identityOverrideProcessor,
};
const CUSTOM = ['drawStyle', 'lineInterpolation', 'lineWidth', 'fillOpacity', 'gradientMode', 'spanNulls',
  'showPoints', 'pointSize', 'stacking', 'axisPlacement', 'axisLabel', 'axisColorMode', 'axisBorderShow',
  'axisCenteredZero', 'scaleDistribution', 'hideFrom', 'thresholdsStyle', 'cellOptions', 'align', 'inspect',
  'width', 'barAlignment', 'barWidthFactor', 'insertNulls', 'footer'];
const DEFAULTS = {
  timeseries: { drawStyle: 'line', lineInterpolation: 'linear', lineWidth: 1, fillOpacity: 0, gradientMode: 'none',
    spanNulls: false, showPoints: 'never', pointSize: 5, stacking: { mode: 'none', group: 'A' }, axisPlacement: 'auto',
    axisLabel: '', axisColorMode: 'text', axisBorderShow: false, axisCenteredZero: false, insertNulls: false,
    barAlignment: 0, barWidthFactor: 0.6, scaleDistribution: { type: 'linear' }, thresholdsStyle: { mode: 'off' },
    hideFrom: { tooltip: false, viz: false, legend: false } },
  table: { align: 'auto', cellOptions: { type: 'auto' }, inspect: false, footer: { reducers: [] } },
};

function registry(panel) {
  const item = (id, path, process, isCustom) => ({
    id, path, name: id, isCustom, process, shouldApply: () => true, settings: {},
    override: () => null, editor: () => null, getItemsCount: () => 0,
  });
  const colour = panel.type === 'timeseries' ? 'palette-classic' : 'thresholds';
  return new FieldConfigOptionsRegistry(() => [
    ...Object.entries(STANDARD).map(([id, process]) =>
      item(id, id, id === 'color' ? (value) => value ?? { mode: colour } : process, false)),
    ...CUSTOM.map((path) => item(`custom.${path}`, path, (value) => value ?? DEFAULTS[panel.type]?.[path], true)),
  ]);
}

const transformed = (frames, list) =>
  !list?.length || !frames.length ? Promise.resolve(frames)
    : new Promise((resolve, reject) =>
      transformDataFrame(list, frames, { interpolate: (text) => text }).subscribe({ next: resolve, error: reject }));

async function load(panel, context) {
  const asking = (panel.targets ?? []).map((target) => ask(target, context));
  const data = await transformed((await Promise.all(asking)).flat(), panel.transformations);
  return applyFieldOverrides({
    data, theme, fieldConfig: panel.fieldConfig, timeZone: 'utc', fieldConfigRegistry: registry(panel),
    replaceVariables: (text) => text,
  });
}

function Numbers({ panel, frames, width, height }) {
  const shown = getFieldDisplayValues({
    fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions, data: frames, theme,
    replaceVariables: (text) => text, sparkline: panel.options.graphMode !== 'none', timeZone: 'utc',
  });
  return (
    <div style={{ display: 'flex', gap: 4 }}>
      {shown.map((found, index) => (
        <BigValue key={index} theme={theme} sparkline={found.sparkline} height={height}
          value={{ ...found.display, title: shown.length > 1 ? found.display.title : '' }}
          width={(width - 4 * (shown.length - 1)) / shown.length} colorMode={panel.options.colorMode}
          graphMode={panel.options.graphMode} textMode="auto" justifyMode="auto" count={shown.length} />
      ))}
    </div>
  );
}

function sorted(frame, panel) {
  const field = frame.fields.find((found) => found.name === panel.options.sortBy?.[0]?.displayName || found.config.displayName === panel.options.sortBy?.[0]?.displayName);
  if (!field) return frame;
  const order = field.values.map((value, index) => [value, index]).sort((a, b) => b[0] - a[0]).map(([, index]) => index);
  return { ...frame, fields: frame.fields.map((found) => ({ ...found, values: order.map((index) => found.values[index]) })) };
}

function Body({ panel, frames, width, height, context }) {
  if (panel.type === 'text') {
    return <div className="markdown-html" style={{ overflow: 'hidden', height }} dangerouslySetInnerHTML={{ __html: renderMarkdown(panel.options.content) }} />;
  }
  if (!frames.length) {
    return <div style={{ display: 'grid', placeItems: 'center', height, color: theme.colors.text.secondary }}>No data</div>;
  }
  const range = { from: context.from, to: context.to };
  const time = { from: dateTime(range.from), to: dateTime(range.to), raw: { from: dateTime(range.from), to: dateTime(range.to) } };
  const size = { width, height };
  switch (panel.type) {
    case 'stat': return <Numbers {...{ panel, frames, ...size }} />;
    case 'table': return <Table data={sorted(frames[0], panel)} {...size} timeRange={time} />;
    case 'heatmap': return <Heatmap {...{ frames, range, theme, ...size }} unit={panel.options.yAxis?.unit ?? ''} />;
    case 'state-timeline': return <States {...{ frames, range, theme, ...size }} mappings={panel.fieldConfig.defaults.mappings} />;
    default: return <TimeSeries frames={frames} structureRev={1} timeRange={time} timeZone="utc" {...size} legend={panel.options.legend} options={panel.options} />;
  }
}

function Panel({ panel, context }) {
  const [state, setState] = useState(null);
  useEffect(() => {
    load(panel, context)
      .then((frames) => setState({ frames }))
      .catch((error) => { console.error(panel.title, error); setState({ frames: [], error: String(error) }); })
      .finally(() => { document.body.dataset.done = Number(document.body.dataset.done ?? 0) + 1; });
  }, []);
  const [width, height] = [panel.gridPos.w * CELL.width - 8, panel.gridPos.h * CELL.height - 8];
  const bare = panel.type === 'stat' || panel.type === 'table';
  return (
    <PanelChrome title={panel.title} width={width} height={height} statusMessage={state?.error} padding={bare ? 'none' : 'md'}>
      {(w, h) => state && (
        <PanelContextProvider value={{ eventsScope: 'x', eventBus: new EventBusSrv(), sync: () => DashboardCursorSync.Off, app: 'dashboard' }}>
          <Body panel={panel} frames={state.frames} width={w} height={h} context={context} />
        </PanelContextProvider>
      )}
    </PanelChrome>
  );
}

function Board({ board, context }) {
  const place = ({ x, y, w, h }) => ({
    position: 'absolute', left: x * CELL.width, top: y * CELL.height, width: w * CELL.width - 8, height: h * CELL.height - 8,
  });
  const font = (size) => ({ font: `500 ${size}px ${theme.typography.fontFamily}`, color: theme.colors.text.primary });
  const height = Math.max(...board.panels.map(({ gridPos }) => gridPos.y + gridPos.h)) * CELL.height;
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ padding: 16, width: 1600, boxSizing: 'border-box', background: theme.colors.background.canvas }}>
        <div style={{ ...font(20), height: 34 }}>{board.title}</div>
        <div style={{ position: 'relative', height }}>
          {board.panels.map((panel) => (
            <div key={panel.id} style={place(panel.gridPos)}>
              {panel.type === 'row' ? <div style={{ ...font(16), paddingTop: 6 }}>⌄ {panel.title}</div> : <Panel panel={panel} context={context} />}
            </div>
          ))}
        </div>
      </div>
    </ThemeContext.Provider>
  );
}

const board = await (await fetch(`/dashboards/${asked.get('dashboard')}.json`)).json();
const to = Number(asked.get('to')) * 1000;
const context = { from: to - 3600_000, to, step: 15, scrape: 15 };
createRoot(document.getElementById('root')).render(<Board board={board} context={context} />);
