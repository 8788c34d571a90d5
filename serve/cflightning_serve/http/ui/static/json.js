// JSON with ids of 64 bits: JavaScript's numbers end at 53, so longer integers travel as BigInt (where the browser can).

export const parse = (text) => JSON.parse(text, (key, value, context) =>
  typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source)
    ? BigInt(context.source)
    : value);

export const stringify = (value) => JSON.stringify(value, (key, one) =>
  typeof one === "bigint" ? (JSON.rawJSON ? JSON.rawJSON(String(one)) : Number(one)) : one);
