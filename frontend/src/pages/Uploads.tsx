/** Bringing files in: the transfer, then their ingest, then what became of each file. */
import { Accordion, Alert, Badge, Button, Group, Paper, Progress, Stack, Text } from "@mantine/core";
import { Dropzone } from "@mantine/dropzone";
import { IconCloudUpload, IconFolder } from "@tabler/icons-react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useRef, useState, useSyncExternalStore } from "react";
import { client, throwRefusal, type Schemas } from "../api/client";
import { queries } from "../api/queries";
import { showRefusal } from "../app/refusals";
import { useAct } from "../app/useAct";
import { timeInWords } from "../upload/pace";
import {
  beginTransfer, cancelTransfer, continueTransfer, forgetAddress, hasSent, pauseTransfer, subscribe, transferOf,
  type Transfer,
} from "../upload/transfers";
import { Confirm } from "./Confirm";
import { UploadReport } from "./UploadReport";
import { counted, sizeInWords } from "./words";

const SHOWN = 3;

type Upload = Schemas["UploadSummary"];

export function Uploads({ projectId, keepsIdentities }: { projectId: string; keepsIdentities: boolean }) {
  const queryClient = useQueryClient();
  const uploads = useQuery(queries.uploads(projectId));
  const me = useQuery(queries.me());
  const transfer = useSyncExternalStore(subscribe, () => transferOf(projectId));
  const folder = useRef<HTMLInputElement>(null);
  const [areAllShown, setAllShown] = useState(false);

  const onEnd = () => void queryClient.invalidateQueries({ queryKey: queries.uploads(projectId).queryKey });
  const send = (files: readonly File[]) => void beginTransfer(projectId, files, onEnd).catch(showRefusal);
  const isUnfinished = (upload: Upload) =>
    upload.state === "arriving" && upload.expected_bytes !== null && upload.by === me.data?.username && !hasSent(upload.id);
  // What this page is sending is shown as that.
  const listed = uploads.data?.filter(({ id }) => id !== transfer?.uploadId) ?? [];
  const rest = listed.filter((upload) => !isUnfinished(upload));

  return (
    <Stack gap="xs">
      <Dropzone onDrop={send} disabled={transfer !== undefined} p="md" aria-label="Upload files"
        inputProps={{ "data-testid": "upload-input" } as object}>
        <Group justify="center" gap="sm" style={{ pointerEvents: "none" }}>
          <IconCloudUpload size={28} stroke={1.5} />
          <div>
            <Text size="sm">Drop folders, DICOM, NIfTI, NRRD, pictures, zips or tars here, or click to choose files</Text>
            <Text size="xs" c="dimmed">
              {keepsIdentities
                ? "This project keeps patients' names, numbers and dates."
                : "Only what an image needs is kept: names and numbers of patients are left behind."}
            </Text>
          </div>
        </Group>
      </Dropzone>
      <Group justify="flex-end">
        <Button size="compact-xs" variant="subtle" leftSection={<IconFolder size={14} />} disabled={transfer !== undefined}
          onClick={() => folder.current?.click()}>
          Choose a folder
        </Button>
        <input ref={folder} type="file" multiple hidden data-testid="folder-input" {...{ webkitdirectory: "" }}
          onChange={({ target }) => {
            send([...(target.files ?? [])]);
            target.value = "";
          }} />
      </Group>
      {transfer !== undefined && <TransferPanel projectId={projectId} transfer={transfer} onEnd={onEnd} />}
      {listed.filter(isUnfinished).map((upload) => (
        <Unfinished key={upload.id} projectId={projectId} upload={upload} />
      ))}
      {rest.length > 0 && (
        <Accordion variant="contained" chevronPosition="left">
          {(areAllShown ? rest : rest.slice(0, SHOWN)).map((upload) => (
            <Accordion.Item key={upload.id} value={upload.id}>
              <Accordion.Control><UploadLine upload={upload} /></Accordion.Control>
              <Accordion.Panel><UploadReport projectId={projectId} upload={upload} /></Accordion.Panel>
            </Accordion.Item>
          ))}
        </Accordion>
      )}
      {rest.length > SHOWN && (
        <Group>
          <Button size="compact-xs" variant="subtle" onClick={() => setAllShown(!areAllShown)}>
            {areAllShown ? "Show the last uploads only" : `Show all ${rest.length} uploads`}
          </Button>
        </Group>
      )}
    </Stack>
  );
}

function TransferPanel({ projectId, transfer, onEnd }: { projectId: string; transfer: Transfer; onEnd: () => void }) {
  const [cancelling, setCancelling] = useState(false);
  const { stage, bytes, bytesTotal, files, filesTotal } = transfer;
  const goesByItself = stage === "sending" || stage === "waiting";
  return (
    <Paper withBorder p="sm" data-testid="transfer" data-stage={stage}>
      <Group justify="space-between" mb={6}>
        <Text size="sm">{stageInWords(transfer)}</Text>
        <Group gap="xs">
          {goesByItself
            ? <Button size="compact-xs" variant="default" onClick={() => pauseTransfer(projectId)}>Pause</Button>
            : <Button size="compact-xs" variant="light" onClick={() => continueTransfer(projectId)}>Continue</Button>}
          <Button size="compact-xs" variant="default" onClick={() => setCancelling(true)}>Cancel</Button>
        </Group>
      </Group>
      <Progress value={bytesTotal > 0 ? (100 * bytes) / bytesTotal : 0} animated={goesByItself} aria-label="Transfer"
        color={stage === "waiting" ? "yellow" : stage === "stopped" ? "red" : undefined} />
      <Group justify="space-between" mt={4}>
        <Text size="xs" c="dimmed">
          {sizeInWords(bytes)} of {sizeInWords(bytesTotal)}
          {filesTotal > 1 && ` · ${files.toLocaleString()} of ${counted(filesTotal, "file")}`}
        </Text>
        <Text size="xs" c="dimmed">{paceInWords(transfer)}</Text>
      </Group>
      <Confirm opened={cancelling} title="Cancel this upload?" action="Cancel the upload" stay="Go on"
        onConfirm={() => void cancelTransfer(projectId, onEnd).catch(showRefusal)} onClose={() => setCancelling(false)}>
        What has been sent is removed from the server; nothing of it goes in.
      </Confirm>
    </Paper>
  );
}

function stageInWords({ stage, bytes, bytesTotal, isContinued, message }: Transfer): string {
  switch (stage) {
    case "sending":
      if (bytes >= bytesTotal && bytesTotal > 0) return "Storing…";
      return isContinued ? "Continuing where it stopped…" : "Sending…";
    case "waiting":
      return "The connection was lost; trying again by itself…";
    case "paused":
      return "Paused";
    case "stopped":
      return message ?? "Stopped";
  }
}

function paceInWords({ stage, bytes, bytesTotal, bytesPerSecond }: Transfer): string {
  if (stage !== "sending" || bytesPerSecond === undefined || bytesPerSecond <= 0) return "";
  return `${sizeInWords(bytesPerSecond)}/s · ${timeInWords((bytesTotal - bytes) / bytesPerSecond)} left`;
}

/** One's own, which this page is not sending: begun in another tab, or before the page was closed. */
function Unfinished({ projectId, upload }: { projectId: string; upload: Upload }) {
  const discard = useAct(
    async () => {
      throwRefusal(
        await client.DELETE("/api/transfers/{transfer_id}", {
          params: { path: { transfer_id: upload.id } },
          headers: { "Tus-Resumable": "1.0.0" },
        }),
      );
      await forgetAddress(upload.id);
    },
    { stale: [queries.uploads(projectId).queryKey] },
  );
  return (
    <Alert color="yellow" p="xs" data-testid="unfinished">
      <Group justify="space-between" wrap="nowrap">
        <Text size="sm">
          An unfinished upload of {new Date(upload.created_at).toLocaleString()} ({sizeInWords(upload.size_bytes)} of{" "}
          {sizeInWords(upload.expected_bytes ?? 0)}): drop the same files again to continue, or discard it.
        </Text>
        <Button size="compact-xs" variant="default" loading={discard.isPending} onClick={() => discard.mutate(undefined)}>
          Discard
        </Button>
      </Group>
    </Alert>
  );
}

function UploadLine({ upload }: { upload: Upload }) {
  const running = upload.state === "pending" || upload.state === "running";
  const refused = upload.fates.refused ?? 0;
  return (
    <Group justify="space-between" wrap="nowrap" pr="sm" data-testid="upload" data-state={upload.state}>
      <Text size="sm">
        Upload of {new Date(upload.created_at).toLocaleString()} · {sizeInWords(upload.size_bytes)}
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
          {upload.state === "arriving" && <Badge color="gray" variant="light">arriving from {upload.by}</Badge>}
          {upload.state === "failed" && <Badge color="red" variant="light">{upload.error_code === "expired" ? "expired" : "failed"}</Badge>}
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
