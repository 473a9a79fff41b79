// Heatmap and timeline of states: Grafana's libraries do not contain these two, so they are drawn
// here, with its colours and its rules for values.
import { getFieldDisplayName } from '@grafana/data';

const AXIS = 24;
const HEAT = ['#fff5eb', '#fee6ce', '#fdd0a2', '#fdae6b', '#fd8d3c', '#f16913', '#d94801', '#a63603', '#7f2704'];

const clock = (t) => new Date(t).toISOString().slice(11, 16);

function Times({ range, left, width, height, theme }) {
  return [0.05, 0.25, 0.5, 0.75, 0.95].map((part) => (
    <text key={part} x={left + part * (width - left)} y={height - 6} textAnchor="middle" fill={theme.colors.text.secondary}>
      {clock(range.from + part * (range.to - range.from))}
    </text>
  ));
}

function rows(frames) {
  const bound = (frame) => (frame.fields[1].labels.le === '+Inf' ? Infinity : Number(frame.fields[1].labels.le));
  const sorted = [...frames].sort((a, b) => bound(a) - bound(b));
  return sorted.map((frame, index) => {
    const below = index ? sorted[index - 1].fields[1].values : [];
    const cells = frame.fields[1].values.map((value, k) => Math.max(0, (value ?? 0) - (below[k] ?? 0)));
    return { label: frame.fields[1].labels.le, times: frame.fields[0].values, cells };
  });
}

export function Heatmap({ frames, width, height, range, theme, unit }) {
  const found = rows(frames);
  const most = Math.max(...found.flatMap((row) => row.cells), 1e-9);
  const left = 56;
  const rowHeight = (height - AXIS) / found.length;
  const x = (t) => left + ((t - range.from) / (range.to - range.from)) * (width - left);
  const colours = theme.isDark ? [...HEAT].reverse() : HEAT;
  return (
    <svg width={width} height={height} style={{ display: 'block', font: `12px ${theme.typography.fontFamily}` }}>
      {found.map((row, index) => {
        const y = height - AXIS - (index + 1) * rowHeight;
        return (
          <g key={row.label}>
            <text x={left - 6} y={y + rowHeight / 2 + 4} textAnchor="end" fill={theme.colors.text.secondary}>
              {row.label === '+Inf' ? '+Inf' : `${row.label} ${unit}`}
            </text>
            {row.cells.map((value, k) => {
              if (value < most / 5000 || k === 0) return null;
              const shade = Math.min(8, Math.floor(Math.sqrt(value / most) * 9));
              const from = x(row.times[k - 1]);
              return <rect key={k} x={from} y={y} width={Math.max(1, x(row.times[k]) - from - 0.5)} height={rowHeight - 1} fill={colours[shade]} />;
            })}
          </g>
        );
      })}
      <Times {...{ range, left, width, height, theme }} />
    </svg>
  );
}

function runs(frame) {
  const [time, field] = frame.fields;
  const found = [];
  time.values.forEach((t, k) => {
    if (field.values[k] === null) return;
    const shown = field.display(field.values[k]);
    const last = found[found.length - 1];
    if (last?.shown.text === shown.text && t - last.to <= 1.5 * time.config.interval) last.to = t;
    else found.push({ shown, from: t, to: t + time.config.interval });
  });
  return found;
}

export function States({ frames, width, height, range, theme, mappings }) {
  const left = 150;
  const legend = 24;
  const rowHeight = (height - AXIS - legend) / frames.length;
  const x = (t) => left + ((t - range.from) / (range.to - range.from)) * (width - left);
  const texts = Object.values(mappings[0].options);
  return (
    <svg width={width} height={height} style={{ display: 'block', font: `12px ${theme.typography.fontFamily}` }}>
      {frames.map((frame, index) => (
        <g key={index}>
          <text x={left - 8} y={(index + 0.5) * rowHeight + 4} textAnchor="end" fill={theme.colors.text.primary}>
            {getFieldDisplayName(frame.fields[1], frame, frames)}
          </text>
          {runs(frame).map((run) => {
            const from = x(run.from);
            const size = Math.min(width, x(run.to)) - from;
            return <rect key={run.from} x={from} y={(index + 0.1) * rowHeight} width={size} height={rowHeight * 0.8} fill={run.shown.color} fillOpacity={0.8} />;
          })}
        </g>
      ))}
      <Times {...{ range, left, width, height: height - legend, theme }} />
      {texts.map((entry, index) => (
        <g key={entry.text} transform={`translate(${8 + index * 120}, ${height - 16})`}>
          <rect width={14} height={4} y={4} rx={2} fill={theme.visualization.getColorByName(entry.color)} />
          <text x={20} y={10} fill={theme.colors.text.primary}>{entry.text}</text>
        </g>
      ))}
    </svg>
  );
}
