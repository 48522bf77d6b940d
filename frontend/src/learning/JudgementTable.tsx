/** What each label gains or loses, with how sure that is. */
import { Stack, Table, Text } from "@mantine/core";
import type { Schemas } from "../api/client";
import {
  clicksInWords, diceInWords, differenceInWords, intervalInWords, labelInWords, sideOf, spanOf, type LabelJudgement,
} from "./judgement";
import { placeOf } from "./plot";

const WIDTH = 160;
const HEIGHT = 18;
const COLORS = { better: "var(--mantine-color-teal-5)", worse: "var(--mantine-color-red-5)", open: "var(--mantine-color-gray-5)" };

/** `before` and `after` name whose Dice is whose. */
export function JudgementTable({ judgement: { sentence, labels }, before, after }: {
  judgement: Schemas["Judgement"]; before: string; after: string;
}) {
  const span = spanOf(labels);
  return (
    <Stack gap="xs" data-testid="judgement">
      <Text size="sm" fw={600}>{sentence}</Text>
      {labels.length > 0 && (
        <Table.ScrollContainer minWidth={760}>
          <Table verticalSpacing={4}>
            <Table.Thead>
              <Table.Tr>
                <Table.Th>Label</Table.Th>
                <Table.Th ta="right">Masks</Table.Th>
                <Table.Th ta="right">Subjects</Table.Th>
                <Table.Th ta="right">Dice, {before}</Table.Th>
                <Table.Th ta="right">Dice, {after}</Table.Th>
                <Table.Th>Difference</Table.Th>
                <Table.Th>Clicks to IoU 0.85</Table.Th>
                <Table.Th>to 0.90</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {labels.map((row) => (
                <Table.Tr key={row.label} data-testid="judgement-row" fw={row.label === "all" ? 600 : undefined}>
                  <Table.Td>{labelInWords(row.label)}</Table.Td>
                  <Table.Td ta="right">{row.masks}</Table.Td>
                  <Table.Td ta="right">{row.subjects}</Table.Td>
                  <Table.Td ta="right">{diceInWords(row.opponent_dice)}</Table.Td>
                  <Table.Td ta="right">{diceInWords(row.candidate_dice)}</Table.Td>
                  <Table.Td>
                    <Interval row={row} span={span} />
                    <Text size="xs" c="dimmed">{differenceInWords(row.difference)} ({intervalInWords(row)})</Text>
                  </Table.Td>
                  <Table.Td style={{ whiteSpace: "nowrap" }}>{clicksInWords(row, "85")}</Table.Td>
                  <Table.Td style={{ whiteSpace: "nowrap" }}>{clicksInWords(row, "90")}</Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
    </Stack>
  );
}

/** The difference as a dot on a line through zero, its interval as a bar. */
export function Interval({ row, span }: { row: LabelJudgement; span: number }) {
  const at = (value: number) => placeOf(value, { from: -span, to: span, ticks: [] }, [4, WIDTH - 4]);
  const color = COLORS[sideOf(row)];
  return (
    <svg
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`} width={WIDTH} height={HEIGHT} role="img"
      aria-label={`${differenceInWords(row.difference)}, ${intervalInWords(row)}`}
    >
      <line x1={at(0)} x2={at(0)} y1={0} y2={HEIGHT} stroke="var(--mantine-color-dimmed)" strokeDasharray="2 2" />
      {row.low !== null && row.high !== null && (
        <line x1={at(row.low)} x2={at(row.high)} y1={HEIGHT / 2} y2={HEIGHT / 2} stroke={color} strokeWidth={3} />
      )}
      <circle cx={at(row.difference)} cy={HEIGHT / 2} r={4} fill={color} />
    </svg>
  );
}
