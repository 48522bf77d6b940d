/** Every message is checked against the generated schema before anything uses it. */
import { Validator } from "@cfworker/json-schema";
import type { FromBrowser, ToBrowser } from "../session/session";
import schema from "../protocol.schema.json";

export class UnreadableMessage extends Error {}

/** The message of a text from the server; throws UnreadableMessage for anything else. */
export function parseMessage(text: string): ToBrowser {
  return parse(text, toBrowser) as ToBrowser; // the type is generated from the schema it was held to
}

/** The message of a text that a browser sent: what the contract's examples are tried with. */
export function parseOwnMessage(text: string): FromBrowser {
  return parse(text, fromBrowser) as FromBrowser;
}

// An interpreter, not a compiler: the page's content security policy allows no eval.
const toBrowser = validatorOf("to_browser");
const fromBrowser = validatorOf("from_browser");

function validatorOf(direction: "to_browser" | "from_browser"): Validator {
  const { $defs, properties } = schema;
  const options = { $schema: schema.$schema, $defs, ...properties[direction] };
  return new Validator(options, "2020-12");
}

function parse(text: string, validator: Validator): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new UnreadableMessage(`not JSON: ${String(error)}`);
  }
  const { valid, errors } = validator.validate(value);
  if (!valid) throw new UnreadableMessage(errors.at(-1)?.error ?? "against the schema");
  return value;
}
