/** What surrounds every page but the workspace: the name, where one is, who one is. */
import { Anchor, AppShell, Button, Container, Group, Menu, Text } from "@mantine/core";
import { IconApi, IconChevronDown, IconCube, IconKey, IconLogout } from "@tabler/icons-react";
import { useQueryClient } from "@tanstack/react-query";
import { useState, type ReactNode } from "react";
import { Link, useNavigate } from "react-router";
import { client, throwRefusal, type Schemas } from "../api/client";
import { forgetNames } from "../upload/names";
import { Logo } from "./Logo";
import { PasswordDialog } from "./PasswordDialog";
import { useAct } from "./useAct";

export function Shell({ me, children }: { me: Schemas["Me"]; children: ReactNode }) {
  const queryClient = useQueryClient();
  const navigate = useNavigate();
  const [changingPassword, setChangingPassword] = useState(false);
  const signOut = useAct(async () => throwRefusal(await client.DELETE("/api/session")), {
    stale: [],
    onDone: () => {
      forgetNames();
      queryClient.clear();
      void navigate("/sign-in");
    },
  });
  return (
    <AppShell header={{ height: 52 }} padding="lg">
      <AppShell.Header>
        <Group h="100%" px="lg" justify="space-between">
          <Anchor component={Link} to="/" c="inherit" underline="never" aria-label="All projects">
            <Group gap="xs">
              <Logo />
              <Text fw={600}>Delineate</Text>
            </Group>
          </Anchor>
          <Menu position="bottom-end" width={200}>
            <Menu.Target>
              <Button variant="subtle" color="gray" size="compact-md" rightSection={<IconChevronDown size={14} />}>
                {me.display_name || me.username}
              </Button>
            </Menu.Target>
            <Menu.Dropdown>
              <Menu.Label>{me.username}</Menu.Label>
              {me.is_superuser && (
                <Menu.Item component={Link} to="/models" leftSection={<IconCube size={16} />}>Models</Menu.Item>
              )}
              <Menu.Item component={Link} to="/tokens" leftSection={<IconApi size={16} />}>API tokens</Menu.Item>
              <Menu.Item leftSection={<IconKey size={16} />} onClick={() => setChangingPassword(true)}>
                Change password
              </Menu.Item>
              <Menu.Item leftSection={<IconLogout size={16} />} onClick={() => signOut.mutate(undefined)}>
                Sign out
              </Menu.Item>
            </Menu.Dropdown>
          </Menu>
        </Group>
      </AppShell.Header>
      <AppShell.Main>
        <Container size="xl" px={0}>
          {children}
        </Container>
      </AppShell.Main>
      <PasswordDialog opened={changingPassword} onClose={() => setChangingPassword(false)} />
    </AppShell>
  );
}
