/** Sign in, and go back to where one came from. */
import { Alert, Button, Center, Group, Paper, PasswordInput, Stack, Text, TextInput, Title } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState, type SyntheticEvent } from "react";
import { useLocation, useNavigate } from "react-router";
import { client, dataOf } from "../api/client";
import { queries } from "../api/queries";
import { Logo } from "../app/Logo";
import { usePageTitle } from "../app/usePageTitle";

export function SignInPage() {
  usePageTitle("Sign in");
  const queryClient = useQueryClient();
  const navigate = useNavigate();
  const from = (useLocation().state as { from?: string } | null)?.from ?? "/";
  const [username, setUsername] = useState("");
  const [password, setPassword] = useState("");
  const signIn = useMutation({
    mutationFn: async () => dataOf(await client.POST("/api/session", { body: { username, password } })),
    onSuccess: (me) => {
      queryClient.clear(); // what somebody else saw on this page before
      queryClient.setQueryData(queries.me().queryKey, me);
      void navigate(from, { replace: true });
    },
  });
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    signIn.mutate();
  };
  return (
    <Center mih="100vh" p="md">
      <Paper withBorder p="xl" w={380}>
        <form onSubmit={submit}>
          <Stack>
            <Group gap="sm">
              <Logo size={32} />
              <Title order={1} size="h2">Delineate</Title>
            </Group>
            <Text c="dimmed" size="sm">Structures in medical images, together with SAM-Med2D.</Text>
            {from !== "/" && <Text size="sm">Sign in to go on where you were.</Text>}
            {signIn.error && <Alert color="red" role="alert">{signIn.error.message}</Alert>}
            <TextInput
              label="User name" autoComplete="username" required autoFocus
              value={username} onChange={(event) => setUsername(event.currentTarget.value)}
            />
            <PasswordInput
              label="Password" autoComplete="current-password" required
              value={password} onChange={(event) => setPassword(event.currentTarget.value)}
            />
            <Button type="submit" loading={signIn.isPending}>Sign in</Button>
          </Stack>
        </form>
      </Paper>
    </Center>
  );
}
