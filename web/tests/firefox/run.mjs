// The package in Firefox, and where that ends: `make test-firefox`. It wants Debian's `firefox-esr`, or another named in
// FIREFOX. The page runs by itself and tells what it finds; the exit status is 0 only if all of it went well.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { serve } from '../server.mjs';
import { texts, wantsMatrices } from '../texts.mjs';

const WAIT_MS = 240_000;
const CASES = [['minilm', 'b1_s16'], ['mobilenetv2', 'b1'], ['gpt2_6l', 'b1_decode_p127']];

/** Kernels of each kind and set of dtypes for Firefox's compiler. */
const MOST_OF_EACH = 8;

const root = fileURLToPath(new URL('../../..', import.meta.url));
const data = path.join(root, 'target/test-data/models');
const firefox = [process.env.FIREFOX, '/usr/bin/firefox-esr', '/usr/bin/firefox'].find((file) => file && existsSync(file));
if (!firefox) {
  console.log('FAIL  no Firefox: install Debian\'s `firefox-esr`, or name one in FIREFOX');
  process.exit(1);
}

const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'tilewright-firefox-'));
const preferences = {
  'dom.webgpu.enabled': true, 'gfx.webgpu.ignore-blocklist': true, 'dom.webgpu.workers.enabled': true,
  'browser.shell.checkDefaultBrowser': false, 'datareporting.policy.dataSubmissionEnabled': false, 'app.update.enabled': false,
  'toolkit.telemetry.enabled': false, 'browser.aboutwelcome.enabled': false, 'network.captive-portal-service.enabled': false,
};
fs.writeFileSync(path.join(profile, 'user.js'),
  Object.entries(preferences).map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`).join(''));

// Firefox has neither subgroups nor their matrices.
const kernels = texts(MOST_OF_EACH).filter((text) => !text.code.includes('enable subgroups;') && !wantsMatrices(text));
fs.writeFileSync(path.join(root, 'target/web/texts.json'), JSON.stringify(kernels));
const { server, base } = await serve();
let ended;
const end = new Promise((done) => { ended = done; });
const listener = http.createServer(async (request, response) => {
  let text = '';
  for await (const chunk of request) text += chunk;
  response.writeHead(204, { 'access-control-allow-origin': '*' }).end();
  if (text.startsWith('FAIL')) process.exitCode = 1;
  if (text === 'end') ended();
  else if (text) console.log(text);
});
await new Promise((listening) => listener.listen(0, '127.0.0.1', listening));

const url = new URL(`${base}/tests/firefox.html`);
url.searchParams.set('report', `http://127.0.0.1:${listener.address().port}/`);
url.searchParams.set('cases', JSON.stringify(CASES.map(([model, name]) => [model, name, fs.readdirSync(path.join(data, `${model}.cases`, name))])));
const browser = spawn(firefox, ['--headless', '--no-remote', '--profile', profile, url.href], { stdio: 'ignore' });
const failed = (why) => { console.log(`FAIL  ${why}`); process.exitCode = 1; };
const timer = setTimeout(() => { failed(`no end in ${WAIT_MS / 1000} s`); ended(); }, WAIT_MS);
browser.on('exit', (code, signal) => { failed(`Firefox ended by itself: ${code ?? signal}`); ended(); });
await end;
clearTimeout(timer);
browser.removeAllListeners('exit');
const gone = new Promise((done) => browser.once('exit', done));
if (browser.exitCode === null && browser.signalCode === null && browser.kill()) await gone;
server.close();
listener.close();
fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
process.exit();
