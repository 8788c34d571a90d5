// Inference from a bundle with onnxruntime-node. The graphs take and return raw ids, see BUNDLE.md.

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

  /** Reads the bundle in a folder; graphs are opened at their first use. */
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

  /** Returns whether the bundle has a graph: 'score', 'recommend', 'similar' or an optional one. */
  supports (graph) {
    return Object.hasOwn(this.manifest.graphs, graph)
  }

  /** Converts user or item ids to a tensor [n]; integers become BigInt, because they have 64 bits. */
  ids (kind, values) {
    return this.manifest.ids[kind] === 'int64' ? int64(values) : new ort.Tensor('string', values, [values.length])
  }

  /** Runs a graph; returns its output tensors by name. */
  async run (graph, inputs) {
    if (!this.#sessions.has(graph)) {
      // The default is one thread for each core of the machine, not of the container.
      const options = { intraOpNumThreads: 1, interOpNumThreads: 1 }
      const path = join(this.folder, this.manifest.graphs[graph])
      this.#sessions.set(graph, ort.InferenceSession.create(path, options))
    }
    return (await this.#sessions.get(graph)).run(inputs)
  }

  /** Recommends k items to a user, without the excluded ones. */
  async recommend (user, k = 10, exclude = []) {
    const { item, score, known } = await this.run('recommend', {
      user: this.ids('user', [user]),
      k: int64([k]),
      exclude_user: int64(exclude.map(() => 0)), // indices of `user`
      exclude_item: this.ids('item', exclude)
    })
    return { knownUser: Boolean(known.data[0]), items: this.#toRows(item.data, score.data) }
  }

  /** Predicts the scores of a user for items. */
  async score (user, items) {
    const { score } = await this.run('score', {
      user: this.ids('user', items.map(() => user)),
      item: this.ids('item', items)
    })
    return this.#toRows(items, score.data)
  }

  /** Recommends k items to a new user from [item, rating] pairs. */
  async foldIn (rated, k = 10) {
    const { best, score } = await this.run('fold_in', {
      item: this.ids('item', rated.map(([item]) => item)),
      rating: new ort.Tensor('float32', rated.map(([, rating]) => rating), [rated.length]),
      k: int64([k]),
      exclude_item: this.ids('item', []),
      score_item: this.ids('item', [])
    })
    return this.#toRows(best.data, score.data)
  }

  #toRows (items, scores) {
    return Array.from(items, (item, n) => ({ item, title: this.titles.get(String(item)) ?? null, score: scores[n] }))
      .filter(({ score }) => score > -Infinity) // drops fillers, which occur if fewer than k items are left
  }
}

function int64 (values) {
  return new ort.Tensor('int64', BigInt64Array.from(values, BigInt), [values.length])
}
