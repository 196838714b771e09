// What deploy/grafana/dashboard.json must be, by Grafana's own types. The schema leaves options and queries of a panel open; here
// each kind of panel that the dashboard has is bound to its own.

import type { Dashboard, FieldConfigSource, Panel, RowPanel, VariableModel } from '@grafana/schema';
import type * as heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

/** A type as JSON has it: values of string enums are strings, all members are optional that were. */
type Json<T> = T extends string
  ? `${T}`
  : T extends number | boolean | null | undefined
    ? T
    : T extends object
      ? { [K in keyof T]: Json<T[K]> }
      : T;

/** By variable, so that a data source can be chosen when the dashboard is looked at. */
type Source = { type: 'prometheus'; uid: '${datasource}' };

/** A query of the Prometheus data source, which the schema does not have. */
type Query = {
  datasource: Source;
  editorMode: 'code';
  expr: string;
  refId: string;
  legendFormat?: string;
} & ({ instant: true; range: false; format: 'table' } | { instant: false; range: true; format: 'time_series' | 'heatmap' });

type PanelOf<Type extends string, Options, Field> = Json<Omit<Panel, 'type' | 'options' | 'fieldConfig' | 'targets' | 'datasource'>> & {
  type: Type;
  id: number;
  title: string;
  description: string;
  datasource: Source;
  targets: Query[];
  options: Json<Partial<Options>>;
  fieldConfig: { defaults: Json<Omit<FieldConfigSource['defaults'], 'custom'>> & { custom?: Json<Partial<Field>> } } & Json<
    Omit<FieldConfigSource, 'defaults'>
  >;
};

type AnyPanel =
  | PanelOf<'stat', stat.Options, never>
  | PanelOf<'timeseries', timeseries.Options, timeseries.FieldConfig>
  | PanelOf<'table', table.Options, table.FieldConfig>
  | PanelOf<'heatmap', heatmap.Options, heatmap.FieldConfig>
  | (Omit<Json<RowPanel>, 'panels'> & { panels: [] });

type Annotation =
  | { builtIn: 1; name: string; type: 'dashboard'; datasource: { type: 'grafana'; uid: '-- Grafana --' }; enable: boolean; hide: boolean; iconColor: string }
  | {
      name: string;
      datasource: Source;
      enable: boolean;
      iconColor: string;
      expr: string;
      titleFormat: string;
      textFormat: string;
      step?: string;
      useValueForTime?: boolean;
    };

type Variable = Json<Omit<VariableModel, 'query' | 'datasource'>> & {
  datasource?: Source;
  definition?: string;
  query: string | { qryType: 1; query: string; refId: string };
};

export type Checked = Json<Omit<Dashboard, 'panels' | 'annotations' | 'templating'>> & {
  uid: string;
  panels: AnyPanel[];
  annotations: { list: Annotation[] };
  templating: { list: Variable[] };
};
