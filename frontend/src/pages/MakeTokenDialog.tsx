/** Make an API token, then show its secret, this once. */
import { Button, Checkbox, CopyButton, Group, Modal, Select, Stack, Text, TextInput } from "@mantine/core";
import { IconCheck, IconCopy } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useState, type SyntheticEvent } from "react";
import { client, dataOf } from "../api/client";
import { queries } from "../api/queries";
import { useAct } from "../app/useAct";
import { DEFAULT_LIFETIME, LIFETIMES, daysOf } from "./tokenWords";

export function MakeTokenDialog({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  const [secret, setSecret] = useState<string>();
  const close = () => {
    setSecret(undefined);
    onClose();
  };
  return (
    <Modal
      opened={opened} onClose={close} size="lg" title={secret === undefined ? "Make an API token" : "Copy the token now"}
      // A stray click must not lose what cannot be shown again.
      closeOnClickOutside={secret === undefined} closeOnEscape={secret === undefined}
    >
      {secret === undefined ? <NewToken onMade={setSecret} onCancel={close} /> : <Secret secret={secret} onDone={close} />}
    </Modal>
  );
}

function NewToken({ onMade, onCancel }: { onMade: (secret: string) => void; onCancel: () => void }) {
  const { data: projects = [] } = useQuery(queries.projects());
  const [name, setName] = useState("");
  const [lifetime, setLifetime] = useState<string>(DEFAULT_LIFETIME);
  const [projectId, setProjectId] = useState<string | null>(null);
  const [readOnly, setReadOnly] = useState(false);
  const make = useAct(
    async () =>
      dataOf(
        await client.POST("/api/session/tokens", {
          body: { name, days: daysOf(lifetime), project_id: projectId, read_only: readOnly },
        }),
      ),
    { stale: [["tokens"]], onDone: ({ secret }) => onMade(secret) },
  );
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    make.mutate(undefined);
  };
  return (
    <form onSubmit={submit}>
      <Stack>
        <TextInput
          label="Name" description="What it is for: you will know it by this when you want to end it" required
          maxLength={80} data-autofocus value={name} onChange={(event) => setName(event.currentTarget.value)}
        />
        <Select
          label="Expires" data={LIFETIMES} value={lifetime} allowDeselect={false}
          onChange={(value) => value && setLifetime(value)}
        />
        <Select
          label="Project" description="A program that needs one project should reach no other" placeholder="All your projects"
          data={projects.map((project) => ({ value: project.id, label: project.name }))} value={projectId} clearable searchable
          onChange={setProjectId}
        />
        <Checkbox
          label="Reading only: it changes nothing" checked={readOnly}
          onChange={(event) => setReadOnly(event.currentTarget.checked)}
        />
        <Group justify="flex-end">
          <Button variant="default" onClick={onCancel}>Cancel</Button>
          <Button type="submit" loading={make.isPending}>Make</Button>
        </Group>
      </Stack>
    </form>
  );
}

export function Secret({ secret, onDone }: { secret: string; onDone: () => void }) {
  return (
    <Stack>
      <Text size="sm">
        Whoever has it can do what you can, as far as it reaches. It is shown only now: copy it to where the program
        keeps its secrets.
      </Text>
      <TextInput
        label="Token" readOnly value={secret} data-autofocus styles={{ input: { fontFamily: "monospace" } }}
        onFocus={(event) => event.currentTarget.select()}
      />
      <Group justify="flex-end">
        <CopyButton value={secret}>
          {({ copied, copy }) => (
            <Button
              variant="light" color={copied ? "teal" : undefined} onClick={copy}
              leftSection={copied ? <IconCheck size={16} /> : <IconCopy size={16} />}
            >
              {copied ? "Copied" : "Copy"}
            </Button>
          )}
        </CopyButton>
        <Button onClick={onDone}>Done</Button>
      </Group>
    </Stack>
  );
}
