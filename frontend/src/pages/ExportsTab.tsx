/** Exports: choose a format, watch it being written and read back, fetch it. */
import { Alert, Badge, Button, Checkbox, Group, Progress, Select, Stack, Table, Text } from "@mantine/core";
import { IconDownload } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { client, dataOf, type Schemas } from "../api/client";
import { queries } from "../api/queries";
import { useAct } from "../app/useAct";
import { Empty } from "./Empty";
import type { Project } from "./ProjectPage";
import { ReidentifyButton } from "./ReidentifyButton";
import { sizeInWords } from "./words";

type Format = Schemas["ExportOut"]["format"];

const FORMATS: { value: Format; label: string }[] = [
  { value: "nifti", label: "NIfTI, one file per label" },
  { value: "nifti_label_map", label: "NIfTI label map, one file per series" },
  { value: "png", label: "PNG, one mask per slice and label" },
  { value: "dicom_seg", label: "DICOM Segmentation" },
];

export function ExportsTab({ project }: { project: Project }) {
  const { data: exports } = useQuery(queries.exports(project.id));
  const [format, setFormat] = useState<Format>("nifti");
  const [reviewedOnly, setReviewedOnly] = useState(true);
  const request = useAct(
    async () =>
      dataOf(
        await client.POST("/api/projects/{project_id}/exports", {
          params: { path: { project_id: project.id } },
          body: { format, reviewed_only: reviewedOnly },
        }),
      ),
    { stale: [["project", project.id, "exports"]] },
  );
  return (
    <Stack>
      <Group align="flex-end">
        <Select
          label="Format" data={FORMATS} value={format} allowDeselect={false} w={320}
          onChange={(value) => value && setFormat(value)}
        />
        <Checkbox
          label="Only tasks that a reviewer has accepted" checked={reviewedOnly} mb={8}
          onChange={(event) => setReviewedOnly(event.currentTarget.checked)}
        />
        <Button onClick={() => request.mutate(undefined)} loading={request.isPending}>Export</Button>
      </Group>
      {exports?.length === 0 ? (
        <Empty title="Nothing exported yet">
          An export is a zip of every mask that counts, read back and compared before you can fetch it.
        </Empty>
      ) : (
        <Table>
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Format</Table.Th><Table.Th>Masks</Table.Th><Table.Th>Requested</Table.Th>
              <Table.Th>State</Table.Th><Table.Th />
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {exports?.map((made) => (
              <Table.Tr key={made.id} data-testid="export-row" data-state={made.state}>
                <Table.Td>{FORMATS.find(({ value }) => value === made.format)?.label ?? made.format}</Table.Td>
                <Table.Td>{made.reviewed_only ? "reviewed" : "all accepted"}</Table.Td>
                <Table.Td><Text size="sm" c="dimmed">{new Date(made.created_at).toLocaleString()}</Text></Table.Td>
                <Table.Td><ExportState made={made} /></Table.Td>
                <Table.Td ta="right">
                  {made.state === "done" && (
                    <Group gap="xs" justify="flex-end">
                      {project.has_escrow && project.actions.includes("manage") && (
                        <ReidentifyButton
                          exportId={made.id} fileName={`reidentified-${made.id}-${made.format}.zip`}
                        />
                      )}
                      <Button
                        component="a" href={`/api/exports/${made.id}/file`} download size="compact-sm" variant="light"
                        leftSection={<IconDownload size={14} />}
                      >
                        Download ({sizeInWords(made.size_bytes)})
                      </Button>
                    </Group>
                  )}
                </Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      )}
    </Stack>
  );
}

function ExportState({ made }: { made: Schemas["ExportOut"] }) {
  switch (made.state) {
    case "done":
      return <Badge variant="light" color="teal">verified</Badge>;
    case "failed":
      return <Alert color="red" p="xs">{made.error_message}</Alert>;
    default:
      return (
        <Stack gap={4} w={180}>
          <Progress
            animated aria-label="Series written"
            value={made.series_total > 0 ? (100 * made.series_done) / made.series_total : 0}
          />
          <Text size="xs" c="dimmed">{made.series_done} of {made.series_total || "…"} series</Text>
        </Stack>
      );
  }
}
