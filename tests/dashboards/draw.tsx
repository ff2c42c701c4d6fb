// Draws the panels of our dashboards with Grafana's own components, from what `check.py results` has got of a real Prometheus.
// A Grafana server does more (overrides of every kind, links, variables); what is mapped here by hand is what our panels use.
// State timelines are no component of the package: they are drawn as plain boxes.
import React from 'react';
import { createRoot } from 'react-dom/client';
import { lastValueFrom } from 'rxjs';
import {
  createTheme, DataFrame, dateTime, FieldType, getDisplayProcessor, getFieldDisplayName, standardTransformers,
  standardTransformersRegistry, ThemeContext, ThresholdsMode, toDataFrame, transformDataFrame,
} from '@grafana/data';
import { BigValue, BigValueColorMode, BigValueGraphMode, BigValueTextMode, GlobalStyles, PanelChrome, TimeSeries } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import 'uplot/dist/uPlot.min.css';
import results from './results.json';

const theme = createTheme({ colors: { mode: 'dark' } });
standardTransformersRegistry.setInit(() =>
  [standardTransformers.mergeTransformer, standardTransformers.organizeFieldsTransformer].map(
    (transformation) => ({ id: transformation.id, name: transformation.id, transformation, editor: () => null }) as any));
const { boards, from, to } = results as any;
const name = new URLSearchParams(location.search).get('board')!;
const limit = Number(new URLSearchParams(location.search).get('rows') ?? 99);
const range = { from: dateTime(from * 1000), to: dateTime(to * 1000), raw: { from: 'now-10m', to: 'now' } } as any;
const COLUMN = 50, ROW = 38, GAP = 8;

const legend = (format: string, labels: any) =>
  format === '__auto' ? Object.values(labels).join(' ') || 'Value' : format.replace(/\{\{(\w+)\}\}/g, (_: string, key: string) => labels[key] ?? '');

function series(panel: any, frames: any[]): DataFrame[] {
  const found = frames.flatMap(({ target, result }: any) =>
    result.map((row: any) => {
      const values = row.values ?? [row.value];
      return toDataFrame({
        refId: target.refId,
        fields: [
          { name: 'Time', type: FieldType.time, values: values.map((pair: any) => pair[0] * 1000) },
          { name: 'Value', type: FieldType.number, labels: row.metric, values: values.map((pair: any) => Number(pair[1])),
            config: { displayNameFromDS: legend(target.legendFormat, row.metric) } },
        ],
      });
    }));
  found.forEach((frame: DataFrame, index: number) => dress(frame, panel, index));
  return found;
}

function dress(frame: DataFrame, panel: any, index: number) {
  for (const field of frame.fields) {
    const { color, ...defaults } = panel.fieldConfig.defaults;
    const thresholds = defaults.thresholds ?? { mode: ThresholdsMode.Absolute, steps: [{ value: null, color: 'green' }] };
    field.config = {
      ...defaults,
      color: color ?? { mode: 'palette-classic' },
      thresholds: { ...thresholds, steps: thresholds.steps.map((step: any) => ({ ...step, value: step.value ?? -Infinity })) },
      ...field.config,
    };
    const called = getFieldDisplayName(field, frame);
    for (const override of panel.fieldConfig.overrides) {
      if (override.matcher.options === called) {
        for (const { id, value } of override.properties) {
          if (id.startsWith('custom.')) field.config.custom = { ...field.config.custom, [id.slice(7)]: value };
          else if (id === 'thresholds') {
            field.config.thresholds = { ...value, steps: value.steps.map((step: any) => ({ ...step, value: step.value ?? -Infinity })) };
            field.config.color = { mode: 'thresholds' };
          } else if (id !== 'links') (field.config as any)[id] = value;
        }
      }
    }
    if (field.config.mappings?.length) field.config.color = { mode: 'thresholds' };
    if (field.type !== FieldType.number) delete field.config.unit;
    field.state = { seriesIndex: index };
    field.display = getDisplayProcessor({ field, theme });
  }
}

async function tabled(panel: any, frames: any[]): Promise<DataFrame> {
  const several = frames.length > 1;
  const flat = frames.map(({ target, result }: any) => {
    const labels = [...new Set(result.flatMap((row: any) => Object.keys(row.metric)))] as string[];
    const called = several ? `Value #${target.refId}` : 'Value';
    return toDataFrame({
      refId: target.refId,
      fields: [
        { name: 'Time', type: FieldType.time, values: result.map((row: any) => row.value[0] * 1000) },
        ...labels.map((label) => ({ name: label, type: FieldType.string, values: result.map((row: any) => row.metric[label] ?? '') })),
        { name: called, type: FieldType.number, values: result.map((row: any) => Number(row.value[1])) },
      ],
    });
  });
  const [frame] = await lastValueFrom(transformDataFrame(panel.transformations, flat));
  frame.fields.forEach((field: any) => { if (field.config?.displayName) field.name = field.config.displayName; });
  const by = panel.options.sortBy?.[0];
  const key = by && frame.fields.find((field) => getFieldDisplayName(field, frame) === by.displayName);
  const order = [...Array(frame.length).keys()];
  if (key) order.sort((a, b) => (key.values[b] ?? 0) - (key.values[a] ?? 0));
  frame.fields.forEach((field) => { field.values = order.map((index) => field.values[index]); });
  dress(frame, panel, 0);
  return frame;
}

function Timeline({ frames, width, height }: any) {
  const line = Math.min(26, (height - 20) / Math.max(1, frames.length));
  const x = (time: number) => 190 + ((time / 1000 - from) / (to - from)) * (width - 200);
  return (
    <svg width={width} height={height} fontSize={12} fill={theme.colors.text.primary}>
      {frames.map((frame: DataFrame, index: number) => {
        const [times, values] = frame.fields;
        const display = values.display!;
        return (
          <g key={index} transform={`translate(0,${index * line})`}>
            <text x={4} y={line * 0.65}>{getFieldDisplayName(values, frame)}</text>
            {times.values.map((time: number, at: number) => (
              <rect key={at} x={x(time)} y={2} height={line - 4} width={x(times.values[at + 1] ?? to * 1000) - x(time) + 0.5} fill={display(values.values[at]).color} />
            ))}
          </g>
        );
      })}
    </svg>
  );
}

function Body({ panel, frames, width, height }: any) {
  const [table, setTable] = React.useState<DataFrame>();
  React.useEffect(() => { if (panel.type === 'table') tabled(panel, frames).then(setTable); }, []);
  if (panel.type === 'table') return table ? <TableNG data={table} width={width} height={height} cellHeight={"sm" as any} structureRev={1} /> : null;
  const found = series(panel, frames);
  if (panel.type === 'timeseries') {
    return <TimeSeries frames={found} width={width} height={height} timeZone="utc" timeRange={range} legend={panel.options.legend} />;
  }
  if (panel.type === 'state-timeline') return <Timeline frames={found} width={width} height={height} />;
  const each = width / Math.max(1, found.length);
  return (
    <div style={{ display: 'flex' }}>
      {found.map((frame, index) => {
        const value = frame.fields[1];
        return (
          <BigValue key={index} width={each} height={height} theme={theme} graphMode={BigValueGraphMode.None}
            colorMode={panel.options.colorMode as BigValueColorMode}
            textMode={(found.length > 1 ? 'value_and_name' : panel.options.textMode === 'name' ? 'name' : 'value') as BigValueTextMode}
            value={{ ...value.display!(value.values[value.values.length - 1]), title: getFieldDisplayName(value, frame) }} />
        );
      })}
    </div>
  );
}

const drawn = boards[name].filter(({ panel }: any) => panel.gridPos.y < limit);
const bottom = Math.max(...drawn.map(({ panel }: any) => panel.gridPos.y + panel.gridPos.h));
createRoot(document.getElementById('root')!).render(
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    <div style={{ background: theme.colors.background.canvas, width: 24 * COLUMN + GAP, height: bottom * ROW + GAP, position: 'relative',
      fontFamily: theme.typography.fontFamily, color: theme.colors.text.primary, fontSize: 14 }}>
      {drawn.map(({ panel, frames }: any) => (
        <div key={panel.id} style={{ position: 'absolute', left: GAP + panel.gridPos.x * COLUMN, top: GAP + panel.gridPos.y * ROW }}>
          <PanelChrome title={panel.title} width={panel.gridPos.w * COLUMN - GAP} height={panel.gridPos.h * ROW - GAP}>
            {(width: number, height: number) => <Body panel={panel} frames={frames} width={width} height={height} />}
          </PanelChrome>
        </div>
      ))}
    </div>
  </ThemeContext.Provider>,
);
