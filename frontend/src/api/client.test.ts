import { describe, expect, test } from "vitest";
import { ApiError, dataOf, throwRefusal } from "./client";

const answer = (status: number, error?: unknown) => ({ error, response: new Response(null, { status }) });
const told = (code: string, message: string) => ({ error: { code, message, data: {} } });

function refusalOf(act: () => void): ApiError {
  try {
    act();
  } catch (error) {
    if (error instanceof ApiError) return error;
  }
  throw new Error("Nothing was refused.");
}

describe("a refusal", () => {
  test("has the server's own code and sentence", () => {
    const refusal = refusalOf(() => dataOf(answer(409, told("label_in_use", "The label is in use."))));
    expect(refusal).toMatchObject({ status: 409, code: "label_in_use", message: "The label is in use." });
  });

  test.each([undefined, null, "<html>", { error: "no" }, { error: { code: 7, message: "no" } }])(
    "that is none of ours still has a sentence: %j",
    (body) => {
      const refusal = refusalOf(() => throwRefusal(answer(502, body)));
      expect(refusal.code).toBe("internal");
      expect(refusal.message).toMatch(/^The server .*\.$/);
    },
  );

  test.each([
    [401, "not_signed_in", true],
    [401, "wrong_credentials", false],
    [403, "not_allowed", false],
  ])("%i %s: the session has ended: %s", (status, code, isSignedOut) => {
    expect(refusalOf(() => throwRefusal(answer(status, told(code, "No.")))).isSignedOut).toBe(isSignedOut);
  });
});

test("an answer's data is handed on, and an answer without a body needs none", () => {
  expect(dataOf({ ...answer(200), data: [1] })).toEqual([1]);
  expect(() => throwRefusal(answer(204))).not.toThrow();
});
