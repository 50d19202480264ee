"""A workload on the unmodified py-spiffe library: follows its identities for a while.

usage: pypeer.py unix:///path/api.sock SECONDS

Every 200 ms it takes the current SVID of a live X509Source and checks, with the `cryptography`
package, that the leaf is valid now, that it was signed by the next certificate of the chain and that
the chain ends at an authority of the current bundle. Prints one JSON object.
"""

import datetime
import json
import sys
import time

import jwt
from spiffe import JwtSource, JwtSvid, X509Source


def check(source):
    svid = source.get_x509_context().default_svid
    bundle = source.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    now = datetime.datetime.now(datetime.timezone.utc)
    chain = svid.cert_chain
    for cert in chain:
        if not cert.not_valid_before_utc <= now <= cert.not_valid_after_utc:
            raise ValueError("certificate %x is not valid now" % cert.serial_number)
    for cert, issuer in zip(chain, chain[1:]):
        cert.verify_directly_issued_by(issuer)
    for root in bundle.x509_authorities:
        try:
            chain[-1].verify_directly_issued_by(root)
            return svid
        except Exception:
            continue
    raise ValueError("no authority of the bundle issued %s" % chain[-1].subject)


def check_jwt(source, audience):
    """The name of the key that signed a token just fetched."""
    svid = source.fetch_svid({audience})
    bundle = source.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    JwtSvid.parse_and_validate(svid.token, bundle, {audience})
    return jwt.get_unverified_header(svid.token)["kid"]


def main():
    socket, seconds = sys.argv[1], float(sys.argv[2])
    serials, kids, failures, checks = set(), set(), [], 0
    x509_source = X509Source(socket_path=socket, timeout_in_seconds=30)
    jwt_source = JwtSource(socket_path=socket, timeout_in_seconds=30)
    with x509_source, jwt_source:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                serials.add(check(x509_source).leaf.serial_number)
                if checks % 5 == 0:
                    kids.add(check_jwt(jwt_source, "aud-%d" % checks))
            except Exception as error:
                failures.append(repr(error))
            checks += 1
            time.sleep(0.2)
    report = {"checks": checks, "serials": len(serials), "kids": len(kids), "failures": failures[:10]}
    print(json.dumps(report))


main()
