/** How good first proposals were, week by week; what falls comes first. */
import { Alert, Loader, Paper, SimpleGrid, Stack, Text, Title } from "@mantine/core";
import { IconTrendingDown } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import type { Schemas } from "../api/client";
import { queries } from "../api/queries";
import { Empty } from "../pages/Empty";
import { LinePlot } from "./LinePlot";

type Line = Schemas["DriftLine"];

export function DriftSection({ projectId }: { projectId: string }) {
  const { data: lines, error } = useQuery(queries.drift(projectId));
  return (
    <Stack>
      <Title order={2} size="h4">Week by week</Title>
      {error && <Text c="red" role="alert">{error.message}</Text>}
      {lines === undefined && !error && <Loader aria-label="Loading the weeks" />}
      {lines && <DriftLines lines={lines} />}
    </Stack>
  );
}

export function DriftLines({ lines }: { lines: readonly Line[] }) {
  if (lines.length === 0) {
    return (
      <Empty title="No weeks to compare yet">
        Each accepted mask says how good the model’s first proposal was. A label or a scanner for which proposals get worse is shown here.
      </Empty>
    );
  }
  return (
    <SimpleGrid cols={{ base: 1, sm: 2, lg: 3 }}>
      {fallingFirst(lines).map((line) => (
        <Paper key={`${line.by} ${line.name}`} withBorder p="sm" data-testid="drift-line">
          <Text fw={600} size="sm">{line.name}</Text>
          <Text size="xs" c="dimmed" mb={4}>{line.by === "scanner" ? "scanner" : "label"}</Text>
          <LinePlot
            title={`Dice of first proposals for ${line.name}, by week`} xLabel="week" yLabel="Dice" yBetween={[0, 1]} height={150}
            points={line.points.map(({ week, dice }) => ({ x: Date.parse(week), y: dice }))} xInWords={weekInWords}
            color={line.falls ? "var(--mantine-color-orange-5)" : undefined}
          />
          {line.falls
            ? <Alert color="orange" p="xs" mt="xs" icon={<IconTrendingDown size={16} />}>{line.sentence}</Alert>
            : <Text size="xs" c="dimmed" mt="xs">{line.sentence}</Text>}
        </Paper>
      ))}
    </SimpleGrid>
  );
}

export function fallingFirst(lines: readonly Line[]): Line[] {
  return [...lines].sort((a, b) => Number(b.falls) - Number(a.falls));
}

const weekInWords = (at: number): string =>
  new Date(at).toLocaleDateString(undefined, { day: "numeric", month: "short", timeZone: "UTC" });
