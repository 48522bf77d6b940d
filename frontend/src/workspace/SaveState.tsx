/** Whether what was done is safe. */
import { saveState, type Session } from "../session/session";
import classes from "./Workspace.module.css";

export function SaveState({ session }: { session: Session }) {
  const state = saveState(session);
  const { connection, outbox } = session;
  const isAway = connection === "lost" || connection === "ended";
  return (
    <span
      className={classes.saveState}
      role="status"
      data-testid="save-state"
      data-state={state}
      data-connection={connection}
    >
      <span className={classes.dot} data-state={isAway ? "away" : state} />
      {sentenceOf({ state, connection, waiting: outbox.length })}
    </span>
  );
}

function sentenceOf({
  state,
  connection,
  waiting,
}: {
  state: ReturnType<typeof saveState>;
  connection: Session["connection"];
  waiting: number;
}): string {
  const owed = waiting === 0 ? "everything is saved" : `${waiting} ${waiting === 1 ? "change" : "changes"} to save`;
  switch (connection) {
    case "lost":
      return `Connection lost, ${owed}; trying again…`;
    case "ended":
      return `Disconnected, ${owed}`;
    case "connecting":
      return "Connecting…";
    case "open":
      return state === "saved" ? "Saved" : "Saving…";
  }
}
