/** The page /tasks/:taskId. */
import { Alert, Center, Loader } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useParams } from "react-router";
import { usePageTitle } from "../app/usePageTitle";
import { fetchTask } from "./taskApi";
import { Workspace } from "./Workspace";

export function WorkspacePage() {
  const { taskId = "" } = useParams();
  const queryKey = ["task", taskId];
  const queryClient = useQueryClient();
  const { data: task, error } = useQuery({ queryKey, queryFn: ({ signal }) => fetchTask(taskId, signal) });
  usePageTitle(task === undefined ? "Task" : `Study ${task.series.study_number}, ${task.project_name}`);


  if (task !== undefined) {
    return <Workspace key={task.id} task={task} reloadTask={() => void queryClient.invalidateQueries({ queryKey })} />;
  }
  return (
    <Center h="100%" mih="50vh">
      {error === null ? (
        <Loader aria-label="Loading the task" />
      ) : (
        <Alert color="red" title="This task cannot be opened">
          {error.message}
        </Alert>
      )}
    </Center>
  );
}
