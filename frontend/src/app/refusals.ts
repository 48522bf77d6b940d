/** How refusals reach people: the server's own sentence, in one place. */
import { notifications } from "@mantine/notifications";
import { ApiError } from "../api/client";

export function showRefusal(error: unknown): void {
  if (error instanceof ApiError && error.isSignedOut) return; // the sign-in page says it
  notifications.show({
    color: "red",
    title: "That did not work",
    message: error instanceof Error ? error.message : "Something went wrong; try again.",
    autoClose: 8_000,
  });
}

export function showDone(message: string): void {
  notifications.show({ color: "teal", message, autoClose: 3_000 });
}
