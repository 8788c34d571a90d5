// A bundle in JavaScript: graphs that take and return raw ids, by onnxruntime-node alone. BUNDLE.md specifies them.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import ort from 'onnxruntime-node'

export class Bundle {
  #sessions = new Map()

  constructor (folder, manifest, titles) {
    this.folder = folder
    this.manifest = manifest
    this.titles = titles
  }

  /** Reads the bundle in a folder; its graphs are opened when they are first asked. */
  static async open (folder) {
    const read = async name => {
      const data = await readFile(join(folder, name))
      return JSON.parse(name.endsWith('.gz') ? gunzipSync(data) : data)
    }
    const manifest = await read('manifest.json')
    if (manifest.format !== 'cflightning-bundle' || manifest.format_version > 2) {
      throw new Error(`${folder}: must be a bundle of format 1 or 2`)
    }
    return new Bundle(folder, manifest, new Map(manifest.titles ? Object.entries(await read(manifest.titles)) : []))
  }

  /** Can the bundle answer this question: 'score', 'recommend', 'similar', and others that it may have? */
  answers (question) {
    return Object.hasOwn(this.manifest.graphs, question)
  }

  /** A tensor [n] of ids of a side, 'user' or 'item': BigInt where ids are integers, since they have 64 bits. */
  ids (side, values) {
    return this.manifest.ids[side] === 'int64' ? int64(values) : new ort.Tensor('string', values, [values.length])
  }

  /** Runs the graph that answers a question: input name -> tensor to output name -> tensor. */
  async ask (question, feeds) {
    if (!this.#sessions.has(question)) {
      // Threads are set: onnxruntime would take one for each core of the machine, not of the container.
      const options = { intraOpNumThreads: 1, interOpNumThreads: 1 }
      const path = join(this.folder, this.manifest.graphs[question])
      this.#sessions.set(question, ort.InferenceSession.create(path, options))
    }
    return (await this.#sessions.get(question)).run(feeds)
  }

  /** The k best items for a user, those to leave out not among them. */
  async recommend (user, k = 10, exclude = []) {
    const { item, score, known } = await this.ask('recommend', {
      user: this.ids('user', [user]),
      k: int64([k]),
      exclude_user: int64(exclude.map(() => 0)), // positions in `user`
      exclude_item: this.ids('item', exclude)
    })
    return { knownUser: Boolean(known.data[0]), items: this.#listed(item.data, score.data) }
  }

  /** What a user would give each item. */
  async score (user, items) {
    const { score } = await this.ask('score', {
      user: this.ids('user', items.map(() => user)),
      item: this.ids('item', items)
    })
    return this.#listed(items, score.data)
  }

  /** The k best items for somebody who was not there in training, from [item, rating] pairs. */
  async foldIn (rated, k = 10) {
    const { best, score } = await this.ask('fold_in', {
      item: this.ids('item', rated.map(([item]) => item)),
      rating: new ort.Tensor('float32', rated.map(([, rating]) => rating), [rated.length]),
      k: int64([k]),
      exclude_item: this.ids('item', []),
      score_item: this.ids('item', [])
    })
    return this.#listed(best.data, score.data)
  }

  #listed (items, scores) {
    return Array.from(items, (item, n) => ({ item, title: this.titles.get(String(item)) ?? null, score: scores[n] }))
      .filter(({ score }) => score > -Infinity) // fillers, where exclusions left fewer than k
  }
}

function int64 (values) {
  return new ort.Tensor('int64', BigInt64Array.from(values, BigInt), [values.length])
}
