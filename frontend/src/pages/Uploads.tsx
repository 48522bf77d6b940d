/** Bringing files in: the transfer, then their ingest, then what became of each file. */
import { Accordion, Alert, Badge, Button, Group, Paper, Progress, Stack, Table, Text } from "@mantine/core";
import { Dropzone } from "@mantine/dropzone";
import { IconCloudUpload } from "@tabler/icons-react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { uploadFiles, type Schemas } from "../api/client";
import { queries } from "../api/queries";
import { showRefusal } from "../app/refusals";

const SHOWN = 5;

export function Uploads({ projectId }: { projectId: string }) {
  const queryClient = useQueryClient();
  const uploads = useQuery(queries.uploads(projectId));
  const [share, setShare] = useState<number>();
  const transfer = useRef<AbortController>(null);

  const send = async (files: File[]) => {
    transfer.current = new AbortController();
    setShare(0);
    try {
      await uploadFiles(projectId, files, { onProgress: setShare, signal: transfer.current.signal });
    } catch (error) {
      showRefusal(error);
    } finally {
      setShare(undefined);
      void queryClient.invalidateQueries({ queryKey: queries.uploads(projectId).queryKey });
    }
  };

  return (
    <Stack gap="xs">
      <Dropzone onDrop={(files) => void send(files)} disabled={share !== undefined} p="md" aria-label="Upload files"
        inputProps={{ "data-testid": "upload-input" } as object}>
        <Group justify="center" gap="sm" style={{ pointerEvents: "none" }}>
          <IconCloudUpload size={28} stroke={1.5} />
          <div>
            <Text size="sm">Drop DICOM, NIfTI, NRRD or pictures, or a zip of them, or click to choose</Text>
            <Text size="xs" c="dimmed">
              Only what an image needs is kept: names, dates and numbers of patients are left behind.
            </Text>
          </div>
        </Group>
      </Dropzone>
      {share !== undefined && (
        <Paper withBorder p="sm">
          <Group justify="space-between" mb={6}>
            <Text size="sm">{share < 1 ? "Sending…" : "Storing…"}</Text>
            <Button size="compact-xs" variant="default" onClick={() => transfer.current?.abort()}>Cancel</Button>
          </Group>
          <Progress value={100 * share} animated aria-label="Transfer" />
        </Paper>
      )}
      {uploads.data !== undefined && uploads.data.length > 0 && (
        <Accordion variant="separated" chevronPosition="left">
          {uploads.data.slice(0, SHOWN).map((upload) => (
            <Accordion.Item key={upload.id} value={upload.id}>
              <Accordion.Control><UploadLine upload={upload} /></Accordion.Control>
              <Accordion.Panel><Report projectId={projectId} upload={upload} /></Accordion.Panel>
            </Accordion.Item>
          ))}
        </Accordion>
      )}
    </Stack>
  );
}

function UploadLine({ upload }: { upload: Schemas["UploadSummary"] }) {
  const running = upload.state === "pending" || upload.state === "running";
  const refused = upload.fates.refused ?? 0;
  return (
    <Group justify="space-between" wrap="nowrap" pr="sm" data-testid="upload" data-state={upload.state}>
      <Text size="sm">
        Upload of {new Date(upload.created_at).toLocaleString()} · {megabytes(upload.size_bytes)}
      </Text>
      {running ? (
        <Group gap="xs" w={260} wrap="nowrap">
          <Progress
            flex={1} animated aria-label="Ingest"
            value={upload.files_total > 0 ? (100 * upload.files_done) / upload.files_total : 0}
          />
          <Text size="xs" c="dimmed">{upload.files_done} of {upload.files_total || "…"}</Text>
        </Group>
      ) : (
        <Group gap={6}>
          {upload.state === "failed" && <Badge color="red" variant="light">failed</Badge>}
          {Object.entries(upload.fates).map(([fate, files]) => (
            <Badge key={fate} variant="light" color={fate === "stored" ? "teal" : fate === "refused" ? "orange" : "gray"}>
              {files} {fate}
            </Badge>
          ))}
          {upload.held > 0 && <Badge variant="light" color="yellow">{upload.held} in quarantine</Badge>}
          {refused > 0 && <Text size="xs" c="dimmed">see why</Text>}
        </Group>
      )}
    </Group>
  );
}

function Report({ projectId, upload }: { projectId: string; upload: Schemas["UploadSummary"] }) {
  const { data } = useQuery(queries.upload(projectId, upload.id));
  if (upload.error_message) return <Alert color="red">{upload.error_message}</Alert>;
  const remarkable = data?.report.filter(({ fate, code }) => fate !== "stored" || code !== "") ?? [];
  if (remarkable.length === 0) {
    return <Text size="sm" c="dimmed">{upload.finished_at ? "Every file went in." : "Not finished yet."}</Text>;
  }
  return (
    <Table.ScrollContainer minWidth={400} mah={320}>
      <Table withRowBorders={false} verticalSpacing={2}>
        <Table.Thead>
          <Table.Tr><Table.Th w={90}>File no.</Table.Th><Table.Th w={110}>Fate</Table.Th><Table.Th>Why</Table.Th></Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {remarkable.map((line) => (
            <Table.Tr key={line.file}>
              <Table.Td>{line.file}</Table.Td>
              <Table.Td>{line.fate}</Table.Td>
              <Table.Td>{line.message}</Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}

function megabytes(bytes: number): string {
  return `${(bytes / 1024 ** 2).toFixed(1)} MB`;
}
