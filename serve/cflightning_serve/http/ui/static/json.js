// JSON with 64-bit ids: JavaScript's numbers have 53 bits, so longer integers become BigInt (where the browser supports it).

export const parse = (text) => JSON.parse(text, (key, value, context) =>
  typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source)
    ? BigInt(context.source)
    : value);

export const stringify = (value) => JSON.stringify(value, (key, one) =>
  typeof one === "bigint" ? (JSON.rawJSON ? JSON.rawJSON(String(one)) : Number(one)) : one);
