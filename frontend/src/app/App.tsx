/** Who one is decides what one sees: the sign-in page, or the page of the address. */
import { Button, Center, Loader, MantineProvider, Stack, Text } from "@mantine/core";
import { Notifications } from "@mantine/notifications";
import { MutationCache, QueryCache, QueryClient, QueryClientProvider, useQuery } from "@tanstack/react-query";
import { lazy, Suspense, type ReactNode } from "react";
import { BrowserRouter, Navigate, Route, Routes, useLocation } from "react-router";
import { ApiError, type Schemas } from "../api/client";
import { queries } from "../api/queries";
import { ModelsPage } from "../pages/ModelsPage";
import { NotFoundPage } from "../pages/NotFoundPage";
import { ProjectPage } from "../pages/ProjectPage";
import { ProjectsPage } from "../pages/ProjectsPage";
import { SignInPage } from "../pages/SignInPage";
import { TokensPage } from "../pages/TokensPage";
import { Shell } from "./Shell";
import { theme } from "./theme";

// The viewer is most of the code; project pages need not wait for it.
const WorkspacePage = lazy(async () => ({ default: (await import("../workspace/WorkspacePage")).WorkspacePage }));

const ME = queries.me().queryKey;
const queryClient: QueryClient = new QueryClient({
  queryCache: new QueryCache({ onError: (error, { queryKey }) => queryKey[0] !== ME[0] && noteSignedOut(error) }),
  mutationCache: new MutationCache({ onError: noteSignedOut }),
  defaultOptions: {
    queries: { retry: (failures, error) => failures < 2 && !(error instanceof ApiError && error.status < 500) },
  },
});

/** When the session has ended elsewhere, who one is is asked anew, and the guard below leads to the sign-in page. */
function noteSignedOut(error: Error): void {
  if (error instanceof ApiError && error.isSignedOut) void queryClient.invalidateQueries({ queryKey: ME });
}

export function App() {
  return (
    <MantineProvider theme={theme} forceColorScheme="dark">
      <Notifications position="bottom-right" />
      <QueryClientProvider client={queryClient}>
        <BrowserRouter>
          <Routes>
            <Route path="/sign-in" element={<SignInPage />} />
            <Route path="/" element={<InShell><ProjectsPage /></InShell>} />
            <Route path="/models" element={<InShell><ModelsPage /></InShell>} />
            <Route path="/tokens" element={<InShell><TokensPage /></InShell>} />
            <Route path="/projects/:projectId/:tab?" element={<InShell><ProjectPage /></InShell>} />
            <Route path="/tasks/:taskId" element={<SignedIn>{() => <WorkspacePage />}</SignedIn>} />
            <Route path="*" element={<InShell><NotFoundPage /></InShell>} />
          </Routes>
        </BrowserRouter>
      </QueryClientProvider>
    </MantineProvider>
  );
}

function InShell({ children }: { children: ReactNode }) {
  return <SignedIn>{(me) => <Shell me={me}>{children}</Shell>}</SignedIn>;
}

function SignedIn({ children }: { children: (me: Schemas["Me"]) => ReactNode }) {
  const location = useLocation();
  const { data: me, error, refetch } = useQuery(queries.me());
  if (error instanceof ApiError && error.isSignedOut) {
    const from = `${location.pathname}${location.search}${window.location.hash}`;
    return <Navigate to="/sign-in" replace state={{ from }} />;
  }
  if (me === undefined) return error ? <Failed error={error} onRetry={() => void refetch()} /> : <Waiting />;
  return <Suspense fallback={<Waiting />}>{children(me)}</Suspense>;
}

function Waiting() {
  return <Center mih="60vh"><Loader aria-label="Loading" /></Center>;
}

function Failed({ error, onRetry }: { error: Error; onRetry: () => void }) {
  return (
    <Center mih="60vh">
      <Stack align="center">
        <Text role="alert">{error.message}</Text>
        <Button onClick={onRetry}>Try again</Button>
      </Stack>
    </Center>
  );
}
