/** What an accepted mask cost while each model answered. */
import { Loader, Stack, Table, Text, Title } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import type { Schemas } from "../api/client";
import { queries } from "../api/queries";
import { Empty } from "../pages/Empty";
import { periodInWords } from "./progress";

type Period = Schemas["Period"];

interface Measure {
  title: string;
  of: (period: Period) => number | null;
  inWords: (value: number) => string;
  /** What a full bar stands for; without one, the largest value. */
  full?: number;
}

const MEASURES: readonly Measure[] = [
  { title: "Clicks", of: ({ clicks }) => clicks, inWords: (value) => value.toFixed(1) },
  { title: "Seconds", of: ({ seconds }) => seconds, inWords: (value) => value.toFixed(0) },
  { title: "Dice of the first proposal", of: ({ first_dice }) => first_dice, inWords: (value) => value.toFixed(3), full: 1 },
  { title: "Drawn by hand", of: ({ hand_drawn }) => hand_drawn, inWords: (value) => `${(100 * value).toFixed(0)} %`, full: 1 },
];
const WIDTH = 90;

export function HelpingSection({ projectId }: { projectId: string }) {
  const { data: periods, error } = useQuery(queries.helping(projectId));
  return (
    <Stack>
      <Title order={2} size="h4">Is it helping?</Title>
      {error && <Text c="red" role="alert">{error.message}</Text>}
      {periods === undefined && !error && <Loader aria-label="Loading what masks cost" />}
      {periods && <PeriodTable periods={periods} />}
    </Stack>
  );
}

export function PeriodTable({ periods }: { periods: readonly Period[] }) {
  if (!periods.some(({ masks }) => masks > 0)) {
    return (
      <Empty title="Nothing to measure yet">
        As masks are accepted, this says what one costs under each model that has answered: clicks, seconds, and how much of it
        was drawn by hand.
      </Empty>
    );
  }
  return (
    <Table.ScrollContainer minWidth={760}>
      <Table>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Model</Table.Th><Table.Th>Answered</Table.Th><Table.Th ta="right">Masks</Table.Th>
            {MEASURES.map(({ title }) => <Table.Th key={title}>{title}</Table.Th>)}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {periods.map((period) => (
            <Table.Tr key={`${period.model.digest} ${period.since}`} data-testid="period-row">
              <Table.Td>{period.model.name}</Table.Td>
              <Table.Td><Text size="sm" c="dimmed">{periodInWords(period)}</Text></Table.Td>
              <Table.Td ta="right">{period.masks}</Table.Td>
              {MEASURES.map(({ title, of, inWords, full }) => {
                const value = of(period);
                return (
                  <Table.Td key={title}>
                    {value === null ? <Text size="sm" c="dimmed">–</Text> : (
                      <>
                        <Text size="sm">{inWords(value)}</Text>
                        <Bar share={shareOf(value, full ?? largest(periods, of))} />
                      </>
                    )}
                  </Table.Td>
                );
              })}
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
      <Text size="xs" c="dimmed">Medians of one mask each. Fewer clicks and seconds are better; so is a higher Dice.</Text>
    </Table.ScrollContainer>
  );
}

function Bar({ share }: { share: number }) {
  return (
    <svg viewBox={`0 0 ${WIDTH} 6`} width={WIDTH} height={6} aria-hidden>
      <rect width={WIDTH} height={6} rx={2} fill="var(--mantine-color-dark-5)" />
      <rect width={share * WIDTH} height={6} rx={2} fill="var(--mantine-color-teal-5)" />
    </svg>
  );
}

/** Of a full bar, between 0 and 1. */
export function shareOf(value: number, full: number): number {
  return full > 0 ? Math.min(1, Math.max(0, value / full)) : 0;
}

function largest(periods: readonly Period[], of: Measure["of"]): number {
  return Math.max(0, ...periods.map((period) => of(period) ?? 0));
}
