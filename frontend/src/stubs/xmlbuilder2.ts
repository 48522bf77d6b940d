/** Stands in for xmlbuilder2, see vite.config.ts. */
export function create(): never {
  throw new Error("XML is not read here.");
}
export const convert = create;
export default { create, convert };
