/** One's API tokens: what programs use in one's name, where they reach, and ending that. */
import { Anchor, Badge, Button, Code, Group, Loader, Stack, Table, Text, Title } from "@mantine/core";
import { IconPlus } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { client, throwRefusal } from "../api/client";
import { queries } from "../api/queries";
import { showDone } from "../app/refusals";
import { useAct } from "../app/useAct";
import { usePageTitle } from "../app/usePageTitle";
import { Confirm } from "./Confirm";
import { Empty } from "./Empty";
import { MakeTokenDialog } from "./MakeTokenDialog";
import { examples, isExpired, reachInWords, type Token } from "./tokenWords";

export function TokensPage() {
  usePageTitle("API tokens");
  const tokens = useQuery(queries.tokens());
  const [making, setMaking] = useState(false);
  const make = <Button leftSection={<IconPlus size={16} />} onClick={() => setMaking(true)}>Make a token</Button>;
  return (
    <Stack>
      <Group justify="space-between">
        <Title order={1} size="h2">API tokens</Title>
        {make}
      </Group>
      {tokens.isPending && <Loader aria-label="Loading tokens" />}
      {tokens.error !== null && <Text role="alert">{tokens.error.message}</Text>}
      {tokens.data?.length === 0 && (
        <Empty title="No API tokens yet" action={make}>
          A token lets a program work in your name without your password: a script that uploads, 3D Slicer or another
          DICOMweb client, a gateway that forwards what a scanner sends. Make one for each, so that each can be ended by
          itself.
        </Empty>
      )}
      {tokens.data !== undefined && tokens.data.length > 0 && <TokenTable tokens={tokens.data} />}
      <Examples />
      <MakeTokenDialog opened={making} onClose={() => setMaking(false)} />
    </Stack>
  );
}

function TokenTable({ tokens }: { tokens: readonly Token[] }) {
  const { data: projects = [] } = useQuery(queries.projects());
  const [chosen, setChosen] = useState<Token>();
  const [now] = useState(() => new Date());
  const revoke = useAct(
    async ({ id }: Token) =>
      throwRefusal(await client.DELETE("/api/session/tokens/{token_id}", { params: { path: { token_id: id } } })),
    { stale: [["tokens"]], onDone: (_, { name }) => showDone(`${name} opens nothing any more.`) },
  );
  return (
    <>
      <Table.ScrollContainer minWidth={760}>
        <Table>
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Name</Table.Th><Table.Th>Reaches</Table.Th><Table.Th>Made</Table.Th>
              <Table.Th>Last used</Table.Th><Table.Th>Expires</Table.Th><Table.Th />
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {tokens.map((token) => (
              <Table.Tr key={token.id} data-testid="token-row">
                <Table.Td>{token.name}</Table.Td>
                <Table.Td><Text size="sm">{reachInWords(token, projects)}</Text></Table.Td>
                <Table.Td><Day at={token.created_at} /></Table.Td>
                <Table.Td><Day at={token.last_used_at} otherwise="never" /></Table.Td>
                <Table.Td>
                  {isExpired(token, now)
                    ? <Badge variant="light" color="orange">expired</Badge>
                    : <Day at={token.expires_at} otherwise="when it is revoked" />}
                </Table.Td>
                <Table.Td ta="right">
                  <Button
                    size="compact-sm" variant="light" color="red" aria-label={`Revoke ${token.name}`}
                    onClick={() => setChosen(token)}
                  >
                    Revoke
                  </Button>
                </Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      <Confirm
        opened={chosen !== undefined} title={`Revoke ${chosen?.name ?? ""}?`} action="Revoke"
        onConfirm={() => chosen && revoke.mutate(chosen)} onClose={() => setChosen(undefined)}
      >
        Programs that use it are refused at once. What they have done stays, under your name.
      </Confirm>
    </>
  );
}

function Day({ at, otherwise = "" }: { at: string | null; otherwise?: string }) {
  return (
    <Text size="sm" c="dimmed" title={at === null ? undefined : new Date(at).toLocaleString()}>
      {at === null ? otherwise : new Date(at).toLocaleDateString()}
    </Text>
  );
}

function Examples() {
  return (
    <Stack gap="xs" mt="md">
      <Title order={2} size="h4">How a program uses one</Title>
      <Text size="sm">
        <Code>$PROJECT</Code> is the project&apos;s id, as the address of its page has it. All that can be asked for is described{" "}
        <Anchor href="/api/docs" size="sm">here</Anchor>.
      </Text>
      {examples(window.location.origin).map(({ title, code }) => (
        <Stack key={title} gap={4}>
          <Text size="sm" c="dimmed">{title}:</Text>
          <Code block>{code}</Code>
        </Stack>
      ))}
    </Stack>
  );
}
