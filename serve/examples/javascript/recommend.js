// node recommend.js BUNDLE --user 42 --k 10 --rated 1193:5 --rated 661:3

import { parseArgs } from 'node:util'
import { Bundle } from './bundle.js'

const { values, positionals: [folder] } = parseArgs({
  allowPositionals: true,
  options: {
    user: { type: 'string' },
    k: { type: 'string', default: '10' },
    rated: { type: 'string', multiple: true, default: [] } // ITEM:RATING
  }
})
if (folder === undefined || values.user === undefined) {
  console.error('usage: node recommend.js BUNDLE --user ID [--k N] [--rated ITEM:RATING ...]')
  process.exit(2)
}
const rated = values.rated.map(text => {
  const at = text.lastIndexOf(':')
  return [text.slice(0, at), Number(text.slice(at + 1))]
})
const items = rated.map(([item]) => item)
const k = Number(values.k)

const bundle = await Bundle.open(folder)
const result = await bundle.recommend(values.user, k, items)
result.predicted = await bundle.score(values.user, items)
if (rated.length && bundle.supports('fold_in')) result.newUser = await bundle.foldIn(rated, k)
// JSON has no BigInt, so ids are printed as text.
console.log(JSON.stringify(result, (key, value) => typeof value === 'bigint' ? value.toString() : value))
