// Runs one upload with tus-js-client and tells what happens.
//
//     node driver.mjs '{"modules": "…/node_modules", "file": "…", "options": {"endpoint": "…"}}'
//
// The argument:
//   modules    folder with tus-js-client in it
//   file       path of the file to upload
//   stream     true: hand it over as a stream of unknown length
//   buffer     true: hand over its content, as a browser does with a Blob
//   storage    path of the file in which URLs are remembered; an upload found there is resumed
//   terminate  true: terminate the upload when it is complete
//   options    passed on to tus.Upload
//
// Each line on stdout is an event as JSON: request, response, success, terminated, aborted or error. The word "abort"
// on stdin aborts the upload, as a user who clicks on pause does.

import { createReadStream, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'

const REQUEST_FIELDS = [
  'Upload-Offset',
  'Upload-Length',
  'Upload-Defer-Length',
  'Upload-Complete',
  'X-HTTP-Method-Override',
]
const RESPONSE_FIELDS = ['Upload-Offset', 'Upload-Length', 'Upload-Complete', 'Location']

const order = JSON.parse(process.argv[2])
const tus = createRequire(import.meta.url)(join(order.modules, 'tus-js-client'))

function tell(event, facts) {
  process.stdout.write(`${JSON.stringify({ event, ...facts })}\n`)
}

function pick(message, names) {
  return Object.fromEntries(names.map((name) => [name.toLowerCase(), message.getHeader(name) ?? null]))
}

const options = {
  ...order.options,
  onBeforeRequest: (request) =>
    tell('request', { method: request.getMethod(), url: request.getURL(), ...pick(request, REQUEST_FIELDS) }),
  onAfterResponse: (request, response) =>
    tell('response', { method: request.getMethod(), status: response.getStatus(), ...pick(response, RESPONSE_FIELDS) }),
}
function source() {
  if (order.buffer) return readFileSync(order.file)
  const stream = createReadStream(order.file)
  return order.stream ? stream.pipe(new PassThrough()) : stream
}

const upload = new tus.Upload(source(), {
  ...options,
  ...(order.storage ? { urlStorage: new tus.FileUrlStorage(order.storage) } : {}),
  onError: (error) => {
    tell('error', { message: error.message })
    process.exitCode = 1
    process.stdin.destroy()
  },
  onSuccess: async () => {
    tell('success', { url: upload.url })
    if (order.terminate) {
      await tus.Upload.terminate(upload.url, options)
      tell('terminated', { url: upload.url })
    }
    process.stdin.destroy()
  },
})

process.stdin.setEncoding('utf8').on('data', async (word) => {
  if (word.trim() === 'abort') {
    await upload.abort()
    tell('aborted', { url: upload.url })
    process.stdin.destroy()
  }
})

if (order.storage) {
  const [previous] = await upload.findPreviousUploads()
  if (previous) upload.resumeFromPreviousUpload(previous)
}
upload.start()
