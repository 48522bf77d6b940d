/** An empty state: what is missing, and what to do about it. */
import { Paper, Stack, Text, Title } from "@mantine/core";
import type { ReactNode } from "react";

export function Empty({ title, children, action }: { title: string; children: ReactNode; action?: ReactNode }) {
  return (
    <Paper withBorder p="xl">
      <Stack align="center" gap="xs" maw={560} mx="auto" ta="center">
        <Title order={2} size="h4">{title}</Title>
        <Text c="dimmed" size="sm">{children}</Text>
        {action}
      </Stack>
    </Paper>
  );
}
