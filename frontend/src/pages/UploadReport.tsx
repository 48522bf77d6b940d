/** What became of each file: how many of each fate and reason, and which, by the name where this tab knows it. */
import { Alert, Badge, Group, SegmentedControl, Stack, Table, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import type { Schemas } from "../api/client";
import { queries } from "../api/queries";
import { nameOf } from "../upload/names";
import { chosenLines, fatesOf, reasonsOf } from "./uploadLines";
import { counted } from "./words";

const SHOWN = 200; // of up to 100,000

export function UploadReport({ projectId, upload }: { projectId: string; upload: Schemas["UploadSummary"] }) {
  const { data } = useQuery(queries.upload(projectId, upload.id));
  const [fate, setFate] = useState<string>();
  const [code, setCode] = useState<string>();
  if (upload.error_message) return <Alert color="red">{upload.error_message}</Alert>;
  const report = data?.report ?? [];
  if (report.length === 0) return <Text size="sm" c="dimmed">{upload.finished_at ? "It held no files." : "Not finished yet."}</Text>;
  const fates = fatesOf(report);
  const shown = fate ?? fates[0]?.fate ?? "";
  const lines = chosenLines(report, { fate: shown, code });
  const nameOfLine = ({ file }: Schemas["FileFate"]) => nameOf(upload.id, file, upload.files_total);
  const isNamed = lines.some((line) => nameOfLine(line) !== undefined);
  return (
    <Stack gap="xs">
      <Group gap="xs">
        <SegmentedControl size="xs" value={shown} aria-label="Fate"
          onChange={(next) => {
            setFate(next);
            setCode(undefined);
          }}
          data={fates.map((each) => ({ value: each.fate, label: `${each.files.toLocaleString()} ${each.fate}` }))} />
        {reasonsOf(report, shown).map((reason) => (
          <Badge key={reason.code} component="button" style={{ cursor: "pointer" }} aria-pressed={code === reason.code}
            variant={code === reason.code ? "filled" : "light"} color="gray" tt="none"
            onClick={() => setCode(code === reason.code ? undefined : reason.code)}>
            {reason.files.toLocaleString()} × {reason.code}
          </Badge>
        ))}
      </Group>
      <Table.ScrollContainer minWidth={400} mah={320}>
        <Table withRowBorders={false} verticalSpacing={2}>
          <Table.Thead>
            <Table.Tr><Table.Th w={90}>File no.</Table.Th>{isNamed && <Table.Th w="40%">Name</Table.Th>}<Table.Th>Why</Table.Th></Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {lines.slice(0, SHOWN).map((line) => (
              <Table.Tr key={line.file}>
                <Table.Td>{line.file}</Table.Td>
                {isNamed && (
                  <Table.Td style={{ overflowWrap: "anywhere" }}>
                    <bdi>{nameOfLine(line) ?? <Text span size="sm" c="dimmed">in an archive</Text>}</bdi>
                  </Table.Td>
                )}
                <Table.Td>{line.message || "It went in."}</Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      {lines.length > SHOWN && <Text size="xs" c="dimmed">and {counted(lines.length - SHOWN, "more file")}</Text>}
      <Text size="xs" c="dimmed">Files are numbered, as names can identify people: the server keeps none. The tab that sent them shows those of its last upload, not of files within archives.</Text>
    </Stack>
  );
}
