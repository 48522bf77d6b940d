/** Who one is decides what one sees: the sign-in page, or the page of the address. */
import { Center, Loader, MantineProvider } from "@mantine/core";
import { Notifications } from "@mantine/notifications";
import { QueryCache, QueryClient, QueryClientProvider, useQuery } from "@tanstack/react-query";
import { lazy, Suspense, type ReactNode } from "react";
import { BrowserRouter, Navigate, Route, Routes, useLocation } from "react-router";
import { ApiError, type Schemas } from "../api/client";
import { queries } from "../api/queries";
import { NotFoundPage } from "../pages/NotFoundPage";
import { ProjectPage } from "../pages/ProjectPage";
import { ProjectsPage } from "../pages/ProjectsPage";
import { SignInPage } from "../pages/SignInPage";
import { Shell } from "./Shell";
import { theme } from "./theme";

// The viewer is most of the code; project pages need not wait for it.
const WorkspacePage = lazy(async () => ({ default: (await import("../workspace/WorkspacePage")).WorkspacePage }));

const queryClient: QueryClient = new QueryClient({
  queryCache: new QueryCache({
    onError: (error) => {
      // The session has ended elsewhere: the guard below then asks to sign in.
      if (error instanceof ApiError && error.status === 401) queryClient.setQueryData(queries.me().queryKey, undefined);
    },
  }),
  defaultOptions: {
    queries: { retry: (failures, error) => failures < 2 && !(error instanceof ApiError && error.status < 500) },
  },
});

export function App() {
  return (
    <MantineProvider theme={theme} forceColorScheme="dark">
      <Notifications position="bottom-right" />
      <QueryClientProvider client={queryClient}>
        <BrowserRouter>
          <Routes>
            <Route path="/sign-in" element={<SignInPage />} />
            <Route path="/" element={<InShell><ProjectsPage /></InShell>} />
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
  const { data: me, error } = useQuery(queries.me());
  if (error) return <Navigate to="/sign-in" replace state={{ from: location.pathname }} />;
  if (me === undefined) return <Waiting />;
  return <Suspense fallback={<Waiting />}>{children(me)}</Suspense>;
}

function Waiting() {
  return <Center mih="60vh"><Loader aria-label="Loading" /></Center>;
}
