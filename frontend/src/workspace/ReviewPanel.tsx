/** What reviewers said, and which model answers here. */
import { Badge, Text } from "@mantine/core";
import { memo } from "react";
import type { Review, Task } from "./task";
import classes from "./Workspace.module.css";

export const ReviewPanel = memo(function ReviewPanel({ reviews, model }: { reviews: readonly Review[]; model: Task["model"] }) {
  return (
    <>
      {reviews.length > 0 && (
        <section className={classes.section}>
          <h2>Reviews</h2>
          {[...reviews].reverse().map(({ decision, comment, reviewer, at }) => (
            <article key={at} className={classes.review}>
              <Badge size="xs" variant="light" color={decision === "accepted" ? "teal" : "orange"}>
                {decision === "accepted" ? "Accepted" : "Returned"}
              </Badge>
              <Text size="xs" c="dimmed">
                {reviewer}, {new Date(at).toLocaleString()}
              </Text>
              {comment !== "" && <Text size="sm">{comment}</Text>}
            </article>
          ))}
        </section>
      )}
      <section className={classes.section}>
        <h2>Model</h2>
        <Text size="sm" data-testid="model-name">
          {model === null ? "None" : model.name}
        </Text>
        {model !== null && (
          <Text size="xs" c="dimmed" ff="monospace">
            {model.digest.slice(0, 12)}
          </Text>
        )}
      </section>
    </>
  );
});
