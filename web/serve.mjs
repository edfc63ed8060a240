// The demo page: `make serve`, or `PORT=8081 node web/serve.mjs` once the package is built.
import { serve } from './tests/server.mjs';

const { base } = await serve(Number(process.env.PORT ?? 8080));
console.log(`${base}/demo/`);
