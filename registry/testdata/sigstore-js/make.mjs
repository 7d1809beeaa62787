// Makes the bundles of this folder: Sigstore's own npm packages sign against a stand-in for its services, at times of our choice. The
// keys are thrown away. `npm install @sigstore/mock@0.12.1 @sigstore/sign@4.1.1`, then `node make.mjs` in the folder to write to.
import { createHash, generateKeyPairSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

// Whole seconds: the stand-in writes fractions of them as DER does not allow.
const RealDate = Date;
let offset = 0;
globalThis.Date = class extends RealDate {
  constructor(...words) {
    words.length ? super(...words) : super(Date.now());
  }
  static now() {
    return Math.floor((RealDate.now() + offset) / 1000) * 1000;
  }
};
const at = (time) => (offset = RealDate.parse(time) - RealDate.now());
const START = '2025-01-01T00:00:00Z';
const LATER = '2025-01-01T01:00:00Z';
at('2024-12-01T00:00:00Z');

const require = createRequire(process.cwd() + '/');
const mock = require('@sigstore/mock');
const { bundleToJSON } = require('@sigstore/bundle');
const sign = require('@sigstore/sign');

const pair = () => generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
const serve = (handler) =>
  new Promise((ready) => {
    const server = createServer((request, answer) => {
      const parts = [];
      request.on('data', (part) => parts.push(part));
      request.on('end', async () => {
        const { statusCode, response, contentType } = await handler.fn(Buffer.concat(parts));
        answer.writeHead(statusCode, { 'content-type': contentType ?? 'text/plain' });
        answer.end(response);
      });
    });
    server.listen(0, '127.0.0.1', () => ready([`http://127.0.0.1:${server.address().port}`, server]));
  });

const servers = [];
const start = async (handler) => {
  const [url, server] = await serve(handler);
  servers.push(server);
  return url;
};
const authority = pair();
const ctlog = await mock.initializeCTLog(pair());
const ca = await mock.initializeCA(authority, ctlog);
const tlogName = 'https://rekor.test';
const hash = (bytes) => ({ algorithm: 'sha256', value: createHash('sha256').update(bytes).digest('hex') });
// A log keeps of an envelope its digests and signatures; the stand-in would keep what it was sent.
const keeping = (log) => ({
  publicKey: log.publicKey,
  log: (entry) => {
    if (entry.kind !== 'dsse') return log.log(entry);
    const { envelope, verifiers } = entry.spec.proposedContent;
    const { payload, signatures } = JSON.parse(envelope);
    const spec = {
      envelopeHash: hash(envelope),
      payloadHash: hash(Buffer.from(payload, 'base64')),
      signatures: signatures.map(({ sig }, at) => ({ signature: sig, verifier: verifiers[at] })),
    };
    return log.log({ ...entry, spec });
  },
});
const tlog = keeping(await mock.initializeTLog(tlogName, pair()));
const tsa = await mock.initializeTSA(pair());
const fulcio = await start(mock.fulcioHandler(ca));
const rekor = await start(mock.rekorHandler(tlog));
const stamp = await start(mock.tsaHandler(tsa));
// The same, by somebody whom the root does not know; and our own authority where it publishes nothing, or to somebody else's log.
const otherFulcio = await start(mock.fulcioHandler(await mock.initializeCA(pair(), ctlog)));
const unpublished = await start(mock.fulcioHandler(await mock.initializeCA(authority)));
const elsewhere = await mock.initializeCA(authority, await mock.initializeCTLog(pair()));
const otherPublication = await start(mock.fulcioHandler(elsewhere));
const otherRekor = await start(mock.rekorHandler(await mock.initializeTLog(tlogName, pair())));
const otherStamp = await start(mock.tsaHandler(await mock.initializeTSA(pair())));

const text = (object) => Buffer.from(JSON.stringify(object));
const workflow = 'https://github.com/org/repo/.github/workflows/build.yml@refs/heads/main';
const token = [
  text({ alg: 'none' }),
  text({
    iss: 'https://token.actions.githubusercontent.com',
    sub: workflow,
    job_workflow_ref: 'org/repo/.github/workflows/build.yml@refs/heads/main',
    job_workflow_sha: '1'.repeat(40),
    workflow_ref: 'org/repo/.github/workflows/build.yml@refs/heads/main',
    runner_environment: 'github-hosted',
    repository: 'org/repo',
    sha: '1'.repeat(40),
    ref: 'refs/heads/main',
  }),
  Buffer.from('none'),
]
  .map((part) => part.toString('base64url'))
  .join('.');

const image = Buffer.from('image');
const statement = text({
  _type: 'https://in-toto.io/Statement/v1',
  subject: [{ name: 'image', digest: { sha256: createHash('sha256').update(image).digest('hex') } }],
  predicateType: 'https://slsa.dev/provenance/v1',
  predicate: {
    buildDefinition: {
      buildType: 'https://actions.github.io/buildtypes/workflow/v1',
      externalParameters: { workflow: { repository: 'https://github.com/org/repo' } },
    },
    runDetails: { builder: { id: workflow } },
  },
});

async function make(name, { data = image, from = fulcio, log = rekor, time, later = false, envelope = false, chain = false }) {
  at(START);
  const holder = new sign.FulcioSigner({
    fulcioBaseURL: from,
    identityProvider: { getToken: async () => token },
  });
  // What the witnesses see is signed an hour after its certificate was made.
  const signer = {
    sign: async (data) => {
      const signature = await holder.sign(data);
      if (later) at(LATER);
      return signature;
    },
  };
  const witnesses = [];
  if (log) witnesses.push(new sign.RekorWitness({ rekorBaseURL: log, entryType: 'dsse' }));
  if (time) witnesses.push(new sign.TSAWitness({ tsaBaseURL: time }));
  const Builder = envelope ? sign.DSSEBundleBuilder : sign.MessageSignatureBundleBuilder;
  const artifact = envelope
    ? { data: statement, type: 'application/vnd.in-toto+json' }
    : { data };
  const bundle = await new Builder({ signer, witnesses, certificateChain: chain }).create(artifact);
  writeFileSync(`${name}.json`, JSON.stringify(bundleToJSON(bundle)) + '\n');
}

// What cosign would have signed: the payload of its tag.
const payload = {
  critical: {
    identity: { 'docker-reference': 'registry.test/app' },
    image: { 'docker-manifest-digest': 'sha256:' + createHash('sha256').update(image).digest('hex') },
    type: 'cosign container image signature',
  },
  optional: null,
};
writeFileSync('payload.txt', JSON.stringify(payload));

await make('good', {});
await make('payload', { data: text(payload), time: stamp });
await make('good-stamped', { time: stamp });
await make('stamped-alone', { log: null, time: stamp });
await make('provenance', { envelope: true });
await make('provenance-stamped-alone', { envelope: true, log: null, time: stamp });
await make('chain', { envelope: true, chain: true });
await make('expired', { later: true });
await make('expired-stamped-alone', { log: null, time: stamp, later: true });
await make('no-time', { log: null });
await make('other-authority', { from: otherFulcio });
await make('unpublished', { from: unpublished });
await make('other-publication', { from: otherPublication });
await make('other-log', { log: otherRekor });
await make('other-stamp', { time: otherStamp });

const key = (bytes) => ({
  rawBytes: Buffer.from(bytes).toString('base64'),
  keyDetails: 'PKIX_ECDSA_P256_SHA_256',
  validFor: { start: '2024-01-01T00:00:00Z' },
});
const logged = (bytes, baseUrl) => ({
  baseUrl,
  hashAlgorithm: 'SHA2_256',
  publicKey: key(bytes),
  logId: { keyId: createHash('sha256').update(bytes).digest('base64') },
});
const trusted = (...certificates) => ({
  subject: { organization: 'test', commonName: 'test' },
  uri: 'https://test',
  certChain: { certificates: certificates.map((der) => ({ rawBytes: Buffer.from(der).toString('base64') })) },
  validFor: { start: '2024-01-01T00:00:00Z' },
});
const root = {
  mediaType: 'application/vnd.dev.sigstore.trustedroot+json;version=0.1',
  tlogs: [logged(tlog.publicKey, tlogName)],
  ctlogs: [logged(ctlog.publicKey, 'https://ctfe.test')],
  certificateAuthorities: [trusted(ca.rootCertificate)],
  timestampAuthorities: [trusted(tsa.intCertificate, tsa.rootCertificate)],
};
writeFileSync('trusted_root.json', JSON.stringify(root, null, 1) + '\n');
for (const server of servers) {
  server.closeAllConnections();
  server.close();
}
