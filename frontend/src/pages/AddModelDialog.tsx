/** A checkpoint from one's disk: the file, its name, the transfer. */
import { Alert, Button, FileInput, Group, Modal, Progress, Select, Stack, Text, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useRef, useState, type SyntheticEvent } from "react";
import { ApiError, uploadModel, type NewModel } from "../api/client";
import { queries } from "../api/queries";
import { nameOfFile } from "./modelWords";

export function AddModelDialog({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  const queryClient = useQueryClient();
  const [file, setFile] = useState<File | null>(null);
  const [name, setName] = useState("");
  const [adapters, setAdapters] = useState<NewModel["adapters"]>(null);
  const [share, setShare] = useState<number>();
  const [refusal, setRefusal] = useState<string>();
  const transfer = useRef<AbortController>(null);

  const choose = (chosen: File | null) => {
    setFile(chosen);
    setName(chosen === null ? "" : nameOfFile(chosen.name));
    setAdapters(null);
    setRefusal(undefined);
  };
  const close = () => {
    transfer.current?.abort();
    choose(null);
    onClose();
  };
  const send = async (chosen: File) => {
    transfer.current = new AbortController();
    setRefusal(undefined);
    setShare(0);
    try {
      await uploadModel(chosen, { name, adapters }, { onProgress: setShare, signal: transfer.current.signal });
      choose(null);
      onClose();
    } catch (error) {
      if (!(error instanceof ApiError && error.code === "cancelled")) {
        setRefusal(error instanceof Error ? error.message : "Something went wrong; try again.");
      }
    } finally {
      setShare(undefined);
      void queryClient.invalidateQueries({ queryKey: queries.modelUploads().queryKey });
    }
  };
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    if (file !== null) void send(file);
  };

  return (
    <Modal opened={opened} onClose={close} title="Add a model" closeOnClickOutside={share === undefined}>
      <form onSubmit={submit}>
        <Stack>
          <FileInput
            label="Checkpoint" placeholder="Choose a file" required value={file} onChange={choose} disabled={share !== undefined}
            description="SAM-Med2D, the original SAM (ViT-B, L or H), one fine-tuned from them, or one of Delineate's own; up to 3 GB. Only weights are read: a file that carries code is refused."
            accept=".pth,.pt,.bin,.safetensors"
          />
          <TextInput
            label="Name" maxLength={120} value={name} disabled={share !== undefined}
            onChange={(event) => setName(event.currentTarget.value)}
          />
          <Select
            label="Adapters" clearable placeholder="What suits the file" value={adapters} disabled={share !== undefined}
            description="Small parts beside the image encoder that fine-tuning teaches. An original SAM gets fresh ones."
            data={[
              { value: "keep", label: "Keep the file's" },
              { value: "fresh", label: "Fresh ones, which change nothing until they are trained" },
              { value: "drop", label: "None: the model as it is without them" },
            ]}
            onChange={setAdapters}
          />
          {refusal !== undefined && <Alert color="red" title="That did not work">{refusal}</Alert>}
          {share !== undefined && (
            <Stack gap={4}>
              <Text size="sm">{share < 1 ? `Sending… ${(100 * share).toFixed(0)} %` : "Storing…"}</Text>
              <Progress value={100 * share} animated aria-label="Transfer" />
            </Stack>
          )}
          <Group justify="flex-end">
            <Button variant="default" onClick={close}>Cancel</Button>
            <Button type="submit" disabled={file === null} loading={share !== undefined}>Add</Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
