/** Change one's own password. */
import { Button, Group, Modal, PasswordInput, Stack } from "@mantine/core";
import { useState, type SyntheticEvent } from "react";
import { client, throwRefusal } from "../api/client";
import { showDone } from "./refusals";
import { useAct } from "./useAct";

export function PasswordDialog({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  const [current, setCurrent] = useState("");
  const [next, setNext] = useState("");
  const close = () => {
    setCurrent("");
    setNext("");
    onClose();
  };
  const change = useAct(
    async () => throwRefusal(await client.POST("/api/session/password", { body: { current, new: next } })),
    {
      stale: [["me"]],
      onDone: () => {
        showDone("Your password has been changed.");
        close();
      },
    },
  );
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    change.mutate(undefined);
  };
  return (
    <Modal opened={opened} onClose={close} title="Change password">
      <form onSubmit={submit}>
        <Stack>
          <PasswordInput
            label="Current password" autoComplete="current-password" required data-autofocus
            value={current} onChange={(event) => setCurrent(event.currentTarget.value)}
          />
          <PasswordInput
            label="New password" description="At least 10 characters" autoComplete="new-password" required
            value={next} onChange={(event) => setNext(event.currentTarget.value)}
          />
          <Group justify="flex-end">
            <Button variant="default" onClick={close}>Cancel</Button>
            <Button type="submit" loading={change.isPending}>Change</Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
