// The files that the tests and the demo load, over HTTP.
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const web = fileURLToPath(new URL('..', import.meta.url));
const root = path.dirname(web);
const types = {
  '.js': 'text/javascript', '.mjs': 'text/javascript', '.wasm': 'application/wasm', '.html': 'text/html', '.css': 'text/css',
  '.json': 'application/json', '.svg': 'image/svg+xml', '.txt': 'text/plain',
};

/** Folders by the first part of a URL. */
const folders = {
  dist: path.join(web, 'dist'),
  demo: path.join(web, 'demo'),
  tests: path.join(web, 'tests/page'),
  data: path.join(root, 'target/test-data'),
  minilm: path.join(root, 'target/demo'),
  examples: path.join(root, 'examples/data'),
  corpus: path.join(root, 'tests/corpus/onnx'),
  built: path.join(root, 'target/web'),
  models: path.join(root, 'target/web/models'),
  ort: path.join(web, 'tests/dropin/node_modules/onnxruntime-web/dist'),
};

/** Starts it; `requests` counts by path, for tests of caching. */
export async function serve(port = 0) {
  const requests = [];
  const server = http.createServer((request, response) => {
    const url = decodeURIComponent(new URL(request.url, 'http://localhost').pathname);
    requests.push(`${request.method} ${url}`);
    const [, first, ...rest] = url.split('/');
    const folder = folders[first];
    let file = folder && path.join(folder, ...rest);
    if (file && (file === folder || url.endsWith('/'))) file = path.join(file, 'index.html');
    const inside = file && (file.startsWith(folder + path.sep));
    if (!inside || !fs.existsSync(file) || !fs.statSync(file).isFile()) return response.writeHead(404).end();
    const { size, mtimeMs } = fs.statSync(file);
    response.writeHead(200, {
      'content-type': types[path.extname(file)] ?? 'application/octet-stream', 'content-length': size,
      etag: `"${size}-${mtimeMs}"`, 'cache-control': 'no-store',
      'access-control-allow-origin': '*', // a test takes the package from another origin
    });
    if (request.method === 'HEAD') return response.end();
    fs.createReadStream(file).pipe(response);
  });
  await new Promise((listening) => server.listen(port, '127.0.0.1', listening));
  return { server, requests, base: `http://127.0.0.1:${server.address().port}` };
}
