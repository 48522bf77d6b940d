/** An address that leads nowhere, or to something one may not see. */
import { Button, Stack, Text, Title } from "@mantine/core";
import { Link } from "react-router";
import { usePageTitle } from "../app/usePageTitle";

export function NotFoundPage({ message = "There is nothing at this address." }: { message?: string }) {
  usePageTitle("Not found");
  return (
    <Stack align="center" mt={80}>
      <Title order={1} size="h2">Nothing here</Title>
      <Text c="dimmed">{message}</Text>
      <Button component={Link} to="/" variant="default">To your projects</Button>
    </Stack>
  );
}
