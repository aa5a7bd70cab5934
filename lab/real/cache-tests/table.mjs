// Counts what the tests for caches found, and names each test that this cache does not pass.
//
// usage: node table.mjs TESTS NAME=RESULTS.json…
// The first NAME is the cache that is looked at; the exit code is 1 when it fails a test that the RFC requires.

import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

const [folder, ...named] = process.argv.slice(2)
const load = async path => (await import(pathToFileURL(`${folder}/tests/${path}`))).default
const suites = await load('index.mjs')
const tests = new Map(suites.flatMap(suite => suite.tests).map(test => [test.id, test]))
const caches = named.map(one => {
  const [name, path] = one.split('=')
  return { name, results: JSON.parse(readFileSync(path, 'utf8')) }
})

// A test counts only when those that it builds on passed.
function judge (results, id) {
  const result = results[id]
  if (result === undefined) return 'not run'
  for (const before of tests.get(id)?.depends_on ?? []) {
    if (!['pass', 'yes'].includes(judge(results, before))) return 'depends'
  }
  if (result !== true && result[0] === 'Setup') return result[1] === 'retry' ? 'retried' : 'setup'
  if (result !== true && result[0] === 'AbortError') return 'hung'
  const kind = tests.get(id).kind ?? 'required'
  if (kind === 'check') return result === true ? 'yes' : 'no'
  return result === true ? 'pass' : 'fail'
}

const kinds = ['required', 'optimal', 'check']
const columns = [
  ['required', 'pass'], ['required', 'fail'], ['optimal', 'pass'], ['optimal', 'fail'], ['check', 'yes'], ['check', 'no']
]
const lines = [['cache', ...columns.map(([kind, what]) => `${kind} ${what}`), 'not judged']]
for (const { name, results } of caches) {
  const counts = new Map()
  for (const [id, test] of tests) {
    const kind = kinds.includes(test.kind) ? test.kind : 'required'
    const key = `${kind} ${judge(results, id)}`
    counts.set(key, (counts.get(key) ?? 0) + 1)
  }
  const counted = columns.map(column => counts.get(column.join(' ')) ?? 0)
  const all = [...counts.values()].reduce((sum, count) => sum + count, 0)
  lines.push([name, ...counted, all - counted.reduce((sum, count) => sum + count, 0)])
}
console.log(lines.map(line => `| ${line.join(' | ')} |`).join('\n'))

const [first] = caches
let failed = 0
console.log(`\nNot passed by ${first.name}:`)
for (const [id, test] of tests) {
  const verdict = judge(first.results, id)
  if (['pass', 'yes', 'no', 'not run'].includes(verdict)) continue
  const kind = test.kind ?? 'required'
  if (verdict === 'fail' && kind === 'required') failed += 1
  const others = caches.slice(1).map(({ name, results }) => `${name}: ${judge(results, id)}`).join(', ')
  console.log(`${kind} ${verdict}  ${id}  ${[first.results[id]].flat().slice(1).join(' ')}  (${others})`)
}
process.exit(failed > 0 ? 1 : 0)
