/** Series that may show a patient's name in their pixels: a lead looks, lets them go, or blacks out what stands there. */
import { Alert, Button, Group, Kbd, Loader, Paper, Progress, Stack, Text, Title } from "@mantine/core";
import { useHotkeys } from "@mantine/hooks";
import { IconLockOpen2, IconRectangleFilled } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { client, dataOf, throwRefusal, type Schemas } from "../api/client";
import { queries } from "../api/queries";
import { showDone } from "../app/refusals";
import { useAct } from "../app/useAct";
import { previewUrl } from "./blackBoxes";
import { BlackOutDialog } from "./BlackOutDialog";
import { Confirm } from "./Confirm";
import { Empty } from "./Empty";
import type { Project } from "./ProjectPage";
import { seriesInWords, slicesInWords } from "./words";

type HeldSeries = Schemas["HeldSeriesOut"];

const CARD_SIDE = 360;
const CARDS = { display: "grid", gap: "var(--mantine-spacing-md)", gridTemplateColumns: "repeat(auto-fill, minmax(min(100%, 320px), 1fr))" };
// Of more slices than this the card shows the middle one: they are read for every picture.
const BRIGHTEST_ON_CARDS_OF = 100;

export function QuarantineTab({ project }: { project: Project }) {
  const held = useQuery(queries.quarantine(project.id));
  const [selectedId, setSelectedId] = useState<string>();
  const [opened, setOpened] = useState<HeldSeries>();
  const [releasing, setReleasing] = useState<{ of: string; series: readonly HeldSeries[] }>();
  const list = held.data ?? [];
  const position = Math.max(0, list.findIndex(({ id }) => id === selectedId));
  const selected = list[position];

  const cards = useRef<HTMLDivElement>(null);
  const isAny = list.length > 0;

  // Away from the tab that was clicked, which would take the arrows for itself.
  useEffect(() => {
    if (isAny) cards.current?.querySelector<HTMLElement>("[aria-current=true]")?.focus({ preventScroll: true });
  }, [isAny]);

  const stale = [["project", project.id]];
  const release = useAct(
    async (series: HeldSeries) =>
      throwRefusal(await client.POST("/api/series/{series_id}/release", {
        params: { path: { series_id: series.id } },
        body: { slices: series.slices },
      })),
    { stale, onDone: (_, series) => showDone(`Study ${series.study_number}, ${seriesInWords(series, list)} has been released.`) },
  );
  const releaseSeveral = useAct(
    async (series: readonly HeldSeries[]) =>
      dataOf(await client.POST("/api/projects/{project_id}/quarantine/release", {
        params: { path: { project_id: project.id } },
        body: { series: series.map(({ id, slices }) => ({ series_id: id, slices })) },
      })),
    { stale, onDone: ({ released }) => showDone(`${released} series released.`) },
  );

  const go = (by: number) => {
    const next = list[Math.min(Math.max(position + by, 0), list.length - 1)];
    if (next === undefined) return;
    setSelectedId(next.id);
    document.getElementById(cardId(next))?.focus();
  };
  const isAsking = opened !== undefined || releasing !== undefined;
  const whileNothingIsAsked = (act: () => void) => () => {
    if (!isAsking) act();
  };
  const letGo = (series: HeldSeries | undefined) => {
    if (series === undefined || isBusy(series) || release.isPending) return;
    const next = list[position + 1] ?? list[position - 1];
    setSelectedId(next?.id);
    release.mutate(series);
  };
  useHotkeys([
    ["ArrowRight", whileNothingIsAsked(() => go(1))],
    ["ArrowDown", whileNothingIsAsked(() => go(1))],
    ["ArrowLeft", whileNothingIsAsked(() => go(-1))],
    ["ArrowUp", whileNothingIsAsked(() => go(-1))],
    ["R", whileNothingIsAsked(() => letGo(selected))],
    ["B", whileNothingIsAsked(() => { if (selected && !isBusy(selected)) setOpened(selected); })],
  ]);

  if (held.isPending) return <Loader aria-label="Loading the quarantine" />;
  if (held.error) return <Text c="red">{held.error.message}</Text>;
  if (list.length === 0) {
    return (
      <Empty title="Nothing is in quarantine">
        Ultrasound, pictures, screen captures and whatever is flagged wait here until you have seen whether a name stands in them.
      </Empty>
    );
  }
  return (
    <Stack ref={cards}>
      <Group justify="space-between" align="flex-start" wrap="nowrap">
        <Text size="sm" c="dimmed" maw={720}>
          A name may stand in the pixels of these. Nobody else can open them until you release them or black out what stands
          there. <Kbd size="xs">←</Kbd> <Kbd size="xs">→</Kbd> go from one to the next, <Kbd size="xs">R</Kbd> releases, <Kbd size="xs">B</Kbd> blacks out.
        </Text>
        {list.length > 1 && (
          <Button variant="default" onClick={() => setReleasing({ of: "the project", series: list })}>Release all…</Button>
        )}
      </Group>
      <div style={CARDS}>
        {byStudy(list).map((ofStudy) => (
          // Studies of one series lie side by side; one of several has a row.
          <Stack key={ofStudy.id} gap="xs" style={ofStudy.series.length > 1 ? { gridColumn: "1 / -1" } : undefined}>
            <Group justify="space-between" mih={30}>
              <Group gap="xs">
                <Title order={2} size="h5">Study {ofStudy.number}</Title>
                <Text ff="monospace" size="sm" c="dimmed">{ofStudy.subject}</Text>
              </Group>
              {ofStudy.series.length > 1 && (
                <Button
                  size="compact-sm" variant="subtle"
                  onClick={() => setReleasing({ of: `study ${ofStudy.number}`, series: ofStudy.series })}
                >
                  Release all of study {ofStudy.number}…
                </Button>
              )}
            </Group>
            <div style={CARDS}>
              {ofStudy.series.map((series) => (
                <Card
                  key={series.id} series={series} name={seriesInWords(series, ofStudy.series)}
                  isSelected={series.id === selected?.id}
                  onSelect={() => setSelectedId(series.id)}
                  onRelease={() => letGo(series)}
                  onBlackOut={() => setOpened(series)}
                />
              ))}
            </div>
          </Stack>
        ))}
      </div>
      {opened && <BlackOutDialog key={opened.id} series={opened} projectId={project.id} onClose={() => setOpened(undefined)} />}
      <Confirm
        opened={releasing !== undefined}
        title={`Release ${releasing?.series.length ?? 0} series of ${releasing?.of ?? ""}?`}
        action="Release"
        onConfirm={() => releasing && releaseSeveral.mutate(releasing.series)}
        onClose={() => setReleasing(undefined)}
      >
        Everybody in the project can open them then, as they are. Only those shown here are released, not what comes meanwhile.
      </Confirm>
    </Stack>
  );
}

interface CardProps {
  readonly series: HeldSeries;
  readonly name: string;
  readonly isSelected: boolean;
  readonly onSelect: () => void;
  readonly onRelease: () => void;
  readonly onBlackOut: () => void;
}

function Card({ series, name, isSelected, onSelect, onRelease, onBlackOut }: CardProps) {
  const isAll = series.slices > 1 && series.slices <= BRIGHTEST_ON_CARDS_OF;
  const index = Math.floor(series.slices / 2);
  return (
    <Paper
      withBorder p="sm" id={cardId(series)} tabIndex={0} onFocus={onSelect} onPointerDown={onSelect}
      role="group" aria-label={name} aria-current={isSelected} data-testid="held-series"
      style={isSelected ? { outline: "2px solid var(--mantine-primary-color-filled)", outlineOffset: 1 } : { outline: "none" }}
    >
      <Stack gap="xs">
        <img
          key={series.slices} // it has grown: look anew
          loading="lazy" src={previewUrl(series.id, { side: CARD_SIDE, ...(isAll ? {} : { index }) })} alt={`Preview of ${name}`}
          style={{ width: "100%", height: 220, objectFit: "contain", background: "black" }}
        />
        <div>
          <Text size="sm" fw={500}>{name}</Text>
          <Text size="xs" c="dimmed">
            {series.columns} × {series.rows}, {slicesInWords(series.slices)}
            {series.slices > 1 && (isAll ? " · brightest of all shown" : ` · slice ${index + 1} shown`)}
          </Text>
        </div>
        <Text size="xs">{series.reason.sentence}</Text>
        {series.black_out && <Standing blackOut={series.black_out} />}
        <Group gap="xs" grow>
          <Button size="compact-sm" variant="light" leftSection={<IconLockOpen2 size={14} />} disabled={isBusy(series)} onClick={onRelease}>
            Release
          </Button>
          <Button
            size="compact-sm" variant="default" leftSection={<IconRectangleFilled size={14} />} disabled={isBusy(series)}
            onClick={onBlackOut}
          >
            Black out…
          </Button>
        </Group>
      </Stack>
    </Paper>
  );
}

function Standing({ blackOut }: { blackOut: Schemas["BlackOutOut"] }) {
  if (blackOut.state === "failed") return <Alert color="red" p="xs">{blackOut.error_message}</Alert>;
  return (
    <Stack gap={4}>
      <Progress
        value={(100 * blackOut.slices_done) / Math.max(blackOut.slices_total, 1)} size="sm" animated aria-label="Blacked out slices"
      />
      <Text size="xs" c="dimmed">{blackOut.slices_done} of {slicesInWords(blackOut.slices_total)} blacked out</Text>
    </Stack>
  );
}

const cardId = ({ id }: HeldSeries): string => `held-${id}`;

function isBusy({ black_out }: HeldSeries): boolean {
  return black_out?.state === "pending" || black_out?.state === "running";
}

interface OfStudy {
  readonly id: string;
  readonly number: number;
  readonly subject: string;
  readonly series: readonly HeldSeries[];
}

function byStudy(held: readonly HeldSeries[]): readonly OfStudy[] {
  const studies = new Map<string, HeldSeries[]>();
  for (const series of held) studies.set(series.study_id, [...(studies.get(series.study_id) ?? []), series]);
  return [...studies].flatMap(([id, series]) =>
    series[0] ? [{ id, number: series[0].study_number, subject: series[0].subject, series }] : [],
  );
}
