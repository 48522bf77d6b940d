/** What was done in the project, by whom, when: the audit trail, newest first. */
import { Button, Group, Loader, Stack, Table, Text } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { queries } from "../api/queries";
import type { Project } from "./ProjectPage";

export function ActivityTab({ project }: { project: Project }) {
  const { data, isPending, hasNextPage, fetchNextPage, isFetchingNextPage } = useInfiniteQuery(queries.events(project.id));
  if (isPending) return <Loader aria-label="Loading activity" />;
  return (
    <Stack>
      <Table verticalSpacing={4}>
        <Table.Thead>
          <Table.Tr>
            <Table.Th w={60}>No.</Table.Th><Table.Th w={200}>When</Table.Th><Table.Th w={140}>Who</Table.Th>
            <Table.Th w={200}>What</Table.Th><Table.Th>Details</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {data?.pages.flat().map((event) => (
            <Table.Tr key={event.number}>
              <Table.Td c="dimmed">{event.number}</Table.Td>
              <Table.Td style={{ whiteSpace: "nowrap" }}>{new Date(event.at).toLocaleString()}</Table.Td>
              <Table.Td>{event.actor}</Table.Td>
              <Table.Td>{event.action.replaceAll("_", " ")}</Table.Td>
              <Table.Td>
                <Text size="xs" c="dimmed" style={{ overflowWrap: "anywhere" }}>
                  {event.subject}{detailsOf(event.data)}
                </Text>
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
      {hasNextPage && (
        <Group justify="center">
          <Button variant="default" loading={isFetchingNextPage} onClick={() => void fetchNextPage()}>Older</Button>
        </Group>
      )}
    </Stack>
  );
}

function detailsOf(data: Readonly<Record<string, unknown>>): string {
  const told = Object.entries(data).filter(([, value]) => value !== "" && value !== null);
  return told.length === 0
    ? ""
    : ` · ${told.map(([name, value]) => `${name.replaceAll("_", " ")}: ${inWords(value)}`).join(", ")}`;
}

function inWords(value: unknown): string {
  if (typeof value === "string") return value;
  return Array.isArray(value) && value.length > 0 ? `(${value.map(inWords).join(", ")})` : JSON.stringify(value);
}
