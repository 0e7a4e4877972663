"""Certificates for tests of TLS, made by the openssl command."""

import subprocess

CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


class Authority:
    """An authority, and certificates that it signs, as PEM files in `folder`."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        subject = ["-days", "2", "-subj", "/CN=authority"]
        self._openssl("req", "-x509", *CURVE, *subject, "-keyout", "ca.key", "-out", "ca.pem")
        self.ca = folder / "ca.pem"

    def sign(self, name):
        """(certificate, key) for localhost and 127.0.0.1."""
        (self.folder / f"{name}.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        self._openssl("req", *CURVE, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signer = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", f"{name}.ext"]
        self._openssl("x509", "-req", "-days", "2", *signer, "-in", f"{name}.csr", "-out", f"{name}.pem")
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def _openssl(self, *arguments):
        result = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
