/** Asks before something that cannot be undone. */
import { Button, Group, Modal, Stack, Text } from "@mantine/core";
import type { ReactNode } from "react";

interface Props {
  opened: boolean;
  title: string;
  action: string;
  /** What not doing it is called, where "Cancel" could be taken for the action. */
  stay?: string;
  children: ReactNode;
  onConfirm: () => void;
  onClose: () => void;
}

export function Confirm({ opened, title, action, stay = "Cancel", children, onConfirm, onClose }: Props) {
  const confirm = () => {
    onConfirm();
    onClose();
  };
  return (
    <Modal opened={opened} onClose={onClose} title={title}>
      <Stack>
        <Text size="sm">{children}</Text>
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose} data-autofocus>{stay}</Button>
          <Button color="red" onClick={confirm}>{action}</Button>
        </Group>
      </Stack>
    </Modal>
  );
}
