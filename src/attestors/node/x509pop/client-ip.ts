/** `verify_client_ip` of x509pop: is the peer's address one of the leaf's IP alternative names? */
import { BlockList, isIP } from 'node:net'

/** `addresses` as certificates carry them: 4 or 16 bytes. */
export function hasAddress(addresses: readonly Uint8Array[], remoteIp: string): boolean {
  const address = remoteIp.replace(/%.*$/, '')
  const family = isIP(address)
  if (family === 0) return false
  const list = new BlockList()
  for (const bytes of addresses) {
    if (bytes.length === 4) list.addAddress([...bytes].join('.'), 'ipv4')
    else list.addAddress(formatIpv6(bytes), 'ipv6')
  }
  return list.check(address, family === 4 ? 'ipv4' : 'ipv6')
}

function formatIpv6(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString('hex')
  return (hex.match(/.{4}/g) ?? []).join(':')
}
