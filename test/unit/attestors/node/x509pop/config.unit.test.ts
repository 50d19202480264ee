import { describe, expect, test } from 'vitest'
import {
  parseX509popAgentConfig,
  parseX509popServerConfig,
} from '../../../../../src/attestors/node/x509pop/config.ts'
import { parseAgentPathTemplate } from '../../../../../src/attestors/node/x509pop/path-template.ts'

const refused = (message: string) =>
  expect.objectContaining({
    kind: 'invalid_argument',
    code: 'bad_plugin_data',
    message: expect.stringContaining(message),
  })

describe('server', () => {
  test('defaults', () => {
    expect(parseX509popServerConfig({ ca_bundle_path: '/ca.pem' })).toEqual({
      mode: 'external_pki',
      spiffePrefix: '/spire-exchange/',
      caBundlePaths: ['/ca.pem'],
      agentPathTemplate: '',
      maxIntermediates: 4,
      maxRsaKeySize: 8192,
      verifyClientIp: false,
    })
  })

  test('every key, in any case, numbers also quoted, and others ignored', () => {
    const config = parseX509popServerConfig({
      mode: 'external_pki',
      ca_bundle_paths: ['a', 'b'],
      agent_path_template: '/x',
      max_intermediates: '2',
      MAX_RSA_key_size: 4096,
      verify_client_ip: true,
      ca_bundel: 'b',
    })
    expect(config).toMatchObject({
      caBundlePaths: ['a', 'b'],
      agentPathTemplate: '/x',
      maxIntermediates: 2,
      maxRsaKeySize: 4096,
      verifyClientIp: true,
    })
  })

  test.each([
    [{ mode: 'spiffe' }, '/spire-exchange/'],
    [{ mode: 'spiffe', spiffe_prefix: '/a' }, '/a/'],
    [{ mode: 'spiffe', svid_prefix: '/b/' }, '/b/'],
  ])('%j has prefix %s', (data, prefix) => {
    expect(parseX509popServerConfig(data).spiffePrefix).toBe(prefix)
  })

  test.each([
    [{}, 'one of ca_bundle_path or ca_bundle_paths must be configured'],
    [{ ca_bundle_path: 'a', ca_bundle_paths: ['b'] }, 'only one of ca_bundle_path'],
    [{ mode: 'x' }, 'mode can only be either spiffe or external_pki'],
    [{ mode: 'spiffe', ca_bundle_path: 'a' }, 'you can not use ca_bundle_path'],
    [{ ca_bundle_path: 'a', max_intermediates: 0 }, 'max_intermediates must be greater than 0'],
    [{ ca_bundle_path: 'a', max_intermediates: 8 }, 'max_intermediates must be less than 8'],
    [{ ca_bundle_path: 'a', max_rsa_key_size: -1 }, 'max_rsa_key_size must be greater than 0'],
    [{ ca_bundle_path: 'a', max_intermediates: 1.5 }, 'max_intermediates'],
    [{ ca_bundle_path: 'a', verify_client_ip: 'true' }, 'verify_client_ip must be true or false'],
    [{ ca_bundle_path: true }, 'ca_bundle_path must be a string'],
    [{ ca_bundle_paths: 'a' }, 'ca_bundle_paths must be a list of strings'],
    [{ mode: 'spiffe', spiffe_prefix: '/a', svid_prefix: '/b' }, 'only one of spiffe_prefix'],
  ])('%j is refused', (data, message) => {
    expect(() => parseX509popServerConfig(data)).toThrow(refused(message))
  })
})

describe('agent', () => {
  const files = { private_key_path: 'k', certificate_path: 'c' }

  test('paths', () => {
    expect(parseX509popAgentConfig({ ...files, intermediates_path: ' i ', other: 1 })).toEqual({
      endpointSocket: '',
      privateKeyPath: 'k',
      certificatePath: 'c',
      intermediatesPath: 'i',
    })
  })

  test.each(['unix:///run/a.sock', 'unix:/run/a.sock', 'tcp://127.0.0.1:80'])(
    'the Workload API at %s instead',
    (address) => {
      expect(parseX509popAgentConfig({ spiffe_endpoint_socket: address })).toMatchObject({
        endpointSocket: address,
      })
    },
  )

  test.each([
    [{ certificate_path: 'c' }, 'private_key_path is required'],
    [{ private_key_path: 'k' }, 'certificate_path is required'],
    [
      { spiffe_endpoint_socket: '/s' },
      'spiffe_endpoint_socket must be unix:///path or tcp://ip:port',
    ],
    [{ ...files, certificate_path: ['c'] }, 'certificate_path must be a string'],
  ])('%j is refused', (data, message) => {
    expect(() => parseX509popAgentConfig(data)).toThrow(refused(message))
  })
})

describe('agent_path_template', () => {
  const vocabulary = { values: ['A', 'B.C'], maps: ['M'] }
  const fields = {
    values: new Map([
      ['A', 'a'],
      ['B.C', 'bc'],
    ]),
    maps: new Map([['M', new Map([['k', 'v']])]]),
  }
  const render = (source: string) => parseAgentPathTemplate(source, vocabulary).render(fields)

  test.each([
    ['/x', '/x'],
    ['/{{ .A }}/{{.B.C}}', '/a/bc'],
    ['/{{ .M.k }}', '/v'],
    ['/a {{- .A -}} b', '/aab'],
    ['/{{/* note */}}{{ .A }}', '/a'],
    ['', ''],
  ])('%s gives %s', (source, path) => expect(render(source)).toBe(path))

  test.each([
    ['/{{ .A', 'unclosed action'],
    ['/{{ lower .A }}', '"lower" is not supported yet'],
    ['/{{ if .A }}x{{ end }}', '"if" is not supported yet'],
    ['/{{ .A | upper }}', 'only fields are supported'],
    ['/{{ .Z }}', 'no field .Z'],
    ['/{{ .M }}', 'no field .M'],
    ['/{{ .M.k.l }}', 'no field .M.k.l'],
    ['/{{ }}', 'only fields are supported'],
    ['/{{ "x" }}', 'only fields are supported'],
  ])('%s is refused: %s', (source, message) => {
    expect(() => parseAgentPathTemplate(source, vocabulary)).toThrow(
      expect.objectContaining({
        kind: 'invalid_argument',
        code: 'bad_agent_path_template',
        message: expect.stringContaining(message),
      }),
    )
  })

  test('a key that is missing fails, and prints nothing', () => {
    expect(() => render('/{{ .M.other }}')).toThrow(
      expect.objectContaining({ kind: 'internal', code: 'agent_path_failed' }),
    )
  })
})
