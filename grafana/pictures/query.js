// Ask Prometheus what a panel asks, and return Grafana's data frames.
import { createDataFrame, FieldType, renderLegendFormat } from '@grafana/data';

const PLAIN = (metric) =>
  Object.entries(metric)
    .map(([key, value]) => `${key}="${value}"`)
    .join(', ');

async function api(path, parameters) {
  const answer = await fetch(`/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const body = await answer.json();
  if (body.status !== 'success') throw new Error(body.error);
  return body.data.result;
}

export function interpolate(text, context) {
  const values = {
    __rate_interval: `${Math.max(4 * context.scrape, context.step + context.scrape)}s`,
    __range: `${(context.to - context.from) / 1000}s`,
    job: '.+',
    instance: '.+',
    route: '.+',
    operation: '.+',
  };
  return Object.entries(values).reduce((out, [key, value]) => out.replaceAll(`$${key}`, value), text);
}

function tableFrame(target, result) {
  const labels = [...new Set(result.flatMap((series) => Object.keys(series.metric)))];
  const columns = labels.map((name) => ({
    name,
    type: FieldType.string,
    values: result.map((series) => series.metric[name] ?? ''),
  }));
  const value = {
    name: 'Value',
    type: FieldType.number,
    values: result.map((series) => Number(series.value[1])),
  };
  return createDataFrame({ refId: target.refId, fields: [...columns, value] });
}

function seriesFrame(target, series, context) {
  const points = new Map((series.values ?? [series.value]).map(([t, v]) => [Math.round(t), Number(v)]));
  const times = [];
  if (target.instant) times.push(context.to);
  else for (let t = context.from; t <= context.to; t += context.step * 1000) times.push(t);
  const legend = target.legendFormat;
  const name = legend && legend !== '__auto' ? renderLegendFormat(legend, series.metric) : PLAIN(series.metric) || 'Value';
  return createDataFrame({
    refId: target.refId,
    name,
    fields: [
      { name: 'Time', type: FieldType.time, config: { interval: context.step * 1000 }, values: times },
      {
        name: 'Value',
        type: FieldType.number,
        labels: series.metric,
        config: { displayNameFromDS: name },
        values: times.map((t) => points.get(Math.round(t / 1000)) ?? null),
      },
    ],
  });
}

export async function ask(target, context) {
  const query = interpolate(target.expr, context);
  if (target.instant) {
    const result = await api('query', { query, time: context.to / 1000 });
    if (target.format === 'table') return result.length ? [tableFrame(target, result)] : [];
    return result.map((series) => seriesFrame(target, series, context));
  }
  const [start, end] = [context.from / 1000, context.to / 1000];
  const result = await api('query_range', { query, start, end, step: context.step });
  return result.map((series) => seriesFrame(target, series, context));
}
