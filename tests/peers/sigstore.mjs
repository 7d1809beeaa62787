// A stand-in for Sigstore's services on loopback, of Sigstore's own npm packages: authority, log, timestamps, and an issuer of identity
// tokens with a device flow and a workflow's endpoint. `node sigstore.mjs PACKAGES DIR` writes trusted_root.json and signing_config.json to
// DIR, says in one line where everything is, and then one line for each request.
// A number behind DIR is how many seconds the timestamp of its trusted root's repository holds.
// `node sigstore.mjs PACKAGES verify ROOT BUNDLE SUBJECT ISSUER`: whether Sigstore's own verifier accepts a bundle.
import { createHash, generateKeyPairSync, sign as signBytes } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

// Whole seconds: the stand-in writes fractions of them as DER does not allow.
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...words) {
    words.length ? super(...words) : super(Date.now());
  }
  static now() {
    return Math.floor(RealDate.now() / 1000) * 1000;
  }
};

const [packages, ...words] = process.argv.slice(2);
const require = createRequire(packages + '/');

if (words[0] === 'verify') {
  const { bundleFromJSON } = require('@sigstore/bundle');
  const { TrustedRoot } = require('@sigstore/protobuf-specs');
  const { toSignedEntity, toTrustMaterial, Verifier } = require('@sigstore/verify');
  const [, root, bundle, subject, issuer] = words;
  const material = toTrustMaterial(TrustedRoot.fromJSON(JSON.parse(readFileSync(root))));
  const entity = toSignedEntity(bundleFromJSON(JSON.parse(readFileSync(bundle))));
  new Verifier(material).verify(entity, { subjectAlternativeName: subject, extensions: { issuer } });
  console.log('accepted');
  process.exit(0);
}

const mock = require('@sigstore/mock');
const pair = () => generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
const said = (object) => console.log(JSON.stringify(object));
const serve = (name, answer) =>
  new Promise((ready) => {
    const server = createServer((request, response) => {
      const parts = [];
      request.on('data', (part) => parts.push(part));
      request.on('end', async () => {
        const body = Buffer.concat(parts);
        said({ asked: name, path: request.url, authorization: request.headers.authorization });
        const { statusCode, response: text, contentType } = await answer(body, request);
        response.writeHead(statusCode, { 'content-type': contentType ?? 'text/plain' });
        response.end(text);
      });
    });
    server.listen(0, '127.0.0.1', () => ready(`http://127.0.0.1:${server.address().port}`));
  });

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

const ctlog = await mock.initializeCTLog(pair());
const ca = await mock.initializeCA(pair(), ctlog);
const tlogName = 'https://rekor.test';
const tlog = keeping(await mock.initializeTLog(tlogName, pair()));
const tsa = await mock.initializeTSA(pair());
const fulcio = await serve('fulcio', mock.fulcioHandler(ca).fn);
const rekor = await serve('rekor', mock.rekorHandler(tlog).fn);
// Requests as RFC 3161 has them, where the stand-in reads JSON and answers a number of its own.
const pkijs = require('pkijs');
const timestamp = await serve('timestamp', async (body) => {
  const request = pkijs.TimeStampReq.fromBER(body);
  const { hashAlgorithm, hashedMessage } = request.messageImprint;
  tsa.tstInfo = (asked) => Object.assign(Object.getPrototypeOf(tsa).tstInfo.call(tsa, asked), { nonce: request.nonce });
  const response = await tsa.timestamp({
    artifactHash: Buffer.from(hashedMessage.valueBlock.valueHexView),
    hashAlgorithmOID: hashAlgorithm.algorithmId,
    nonce: 0,
    policyOID: '1.3.6.1.4.1.57264.2',
    certReq: request.certReq,
  });
  return { statusCode: 201, response, contentType: 'application/timestamp-reply' };
});

const part = (object) => Buffer.from(JSON.stringify(object)).toString('base64url');
const token = (claims) =>
  [{ alg: 'none' }, { aud: 'stand-in', exp: Math.floor(Date.now() / 1000) + 600, ...claims }, 'none'].map(part).join('.');
const json = (object, statusCode = 200) => ({ statusCode, response: JSON.stringify(object), contentType: 'application/json' });
// As tokens and certificates name it.
const iss = 'https://issuer.test';
let polls = 0;
let challenge;
const issuer = await serve('issuer', (body, request) => {
  const form = new URLSearchParams(body.toString());
  const here = `http://${request.headers.host}`;
  switch (request.url.split('?')[0]) {
    case '/.well-known/openid-configuration':
      return json({ issuer: here, device_authorization_endpoint: `${here}/device`, token_endpoint: `${here}/token` });
    case '/device':
      challenge = form.get('code_challenge');
      return json({ device_code: 'a-device-code', user_code: 'WDJB-MJHT', verification_uri: `${here}/open`, expires_in: 60, interval: 1 });
    case '/token': {
      const proven = createHash('sha256').update(form.get('code_verifier') ?? '').digest('base64url');
      if (form.get('device_code') !== 'a-device-code' || proven !== challenge) return json({ error: 'invalid_grant' }, 400);
      return polls++ ? json({ id_token: token({ iss, aud: form.get('client_id'), sub: 'https://example.com/ada' }) }) : json({ error: 'authorization_pending' }, 400);
    }
    case '/workflow':
      if (request.headers.authorization !== 'bearer a-runners-token') return json({}, 401);
      return json({
        value: token({ iss, aud: new URL(request.url, 'http://here').searchParams.get('audience'), sub: 'https://example.com/org/repo/build.yml@refs/heads/main' }),
      });
    default:
      return json({}, 404);
  }
});

const start = '2024-01-01T00:00:00Z';
const key = (bytes) => ({ rawBytes: Buffer.from(bytes).toString('base64'), keyDetails: 'PKIX_ECDSA_P256_SHA_256', validFor: { start } });
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
  validFor: { start },
});
const at = (url) => [{ url, majorApiVersion: 1, validFor: { start }, operator: 'test' }];
const put = (name, object) => writeFileSync(`${words[0]}/${name}`, JSON.stringify(object, null, 1) + '\n');
put('trusted_root.json', {
  mediaType: 'application/vnd.dev.sigstore.trustedroot+json;version=0.1',
  tlogs: [logged(tlog.publicKey, tlogName)],
  ctlogs: [logged(ctlog.publicKey, 'https://ctfe.test')],
  certificateAuthorities: [trusted(ca.rootCertificate)],
  timestampAuthorities: [trusted(tsa.intCertificate, tsa.rootCertificate)],
});
put('signing_config.json', {
  mediaType: 'application/vnd.dev.sigstore.signingconfig.v0.2+json',
  caUrls: at(fulcio),
  oidcUrls: at(issuer),
  rekorTlogUrls: at(rekor),
  tsaUrls: at(timestamp),
  rekorTlogConfig: { selector: 'ANY' },
  tsaConfig: { selector: 'ANY' },
});
// The root's own repository (TUF), of one key; its timestamp ends after so many seconds.
const canonical = (value) => {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (value === null || typeof value !== 'object') {
    return typeof value === 'string' ? `"${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"` : String(value);
  }
  return `{${Object.keys(value).sort().map((name) => `${canonical(name)}:${canonical(value[name])}`).join(',')}}`;
};
const holder = pair();
const owner = {
  keytype: 'ecdsa',
  scheme: 'ecdsa-sha2-nistp256',
  keyval: { public: holder.publicKey.export({ type: 'spki', format: 'pem' }) },
};
const keyid = hash(canonical(owner)).value;
const later = '2099-01-01T00:00:00Z';
const metadata = (_type, more, expires = later) => {
  const signed = { _type, spec_version: '1.0.0', version: 1, expires, ...more };
  const sig = signBytes('sha256', Buffer.from(canonical(signed)), holder.privateKey).toString('hex');
  return JSON.stringify({ signed, signatures: [{ keyid, sig }] });
};
const of = (text) => ({ length: Buffer.byteLength(text), hashes: { sha256: hash(text).value } });
const content = readFileSync(`${words[0]}/trusted_root.json`, 'utf8');
const targets = metadata('targets', { targets: { 'trusted_root.json': of(content) } });
const snapshot = metadata('snapshot', { meta: { 'targets.json': { version: 1, ...of(targets) } } });
const ends = new Date(Date.now() + 1000 * Number(words[1] ?? 86400)).toISOString().replace('.000', '');
const stamp = metadata('timestamp', { meta: { 'snapshot.json': { version: 1, ...of(snapshot) } } }, ends);
const role = { keyids: [keyid], threshold: 1 };
const roles = { root: role, timestamp: role, snapshot: role, targets: role };
writeFileSync(`${words[0]}/root.json`, metadata('root', { consistent_snapshot: false, keys: { [keyid]: owner }, roles }));
const repository = { 'timestamp.json': stamp, 'snapshot.json': snapshot, 'targets.json': targets, 'targets/trusted_root.json': content };
// A later version of the same, where a file `next` lies in DIR; where one called `half` does, only its beginning answers.
const version = 2;
const laterTargets = metadata('targets', { version, targets: { 'trusted_root.json': of(content) } });
const laterSnapshot = metadata('snapshot', { version, meta: { 'targets.json': { version, ...of(laterTargets) } } });
const laterStamp = metadata('timestamp', { version, meta: { 'snapshot.json': { version, ...of(laterSnapshot) } } }, ends);
const half = { 'timestamp.json': laterStamp };
const next = { ...half, 'snapshot.json': laterSnapshot, 'targets.json': laterTargets, 'targets/trusted_root.json': content };
const tuf = await serve('tuf', (_, request) => {
  const files = existsSync(`${words[0]}/half`) ? half : existsSync(`${words[0]}/next`) ? next : repository;
  const response = files[request.url.slice(1)];
  return { statusCode: response ? 200 : 404, response: response ?? '' };
});
said({ tuf, fulcio, rekor, timestamp, issuer, token: token({ iss, sub: 'https://example.com/person' }), forPublic: token({ iss, aud: 'sigstore', sub: 'https://example.com/person' }), other: token({ iss, sub: 'https://example.com/somebody', exp: 1 }) });
