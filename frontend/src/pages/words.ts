/** Numbers of things, in words. */
export function counted(n: number, thing: string): string {
  return `${n} ${thing}${n === 1 ? "" : "s"}`;
}

export const slicesInWords = (slices: number): string => counted(slices, "slice");
