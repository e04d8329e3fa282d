import sys, tempfile
from pathlib import Path
from tests.e2e import testbed
testbed.CACHE = Path("/tmp/vbx/cache")
bed = testbed.VirtualboxBed(Path(tempfile.mkdtemp(prefix="vb-")))
with bed:
    print(bed.vbox("--version"), bed.vbox("list","vms"))
    r = bed.machine("create", "-d", "virtualbox", "smoke0"); print(r.returncode, r.stderr[-600:])
    r = bed.machine("create", "--help", "-d", "virtualbox"); print(r.stdout[-2500:], r.stderr)
    print(bed.inventory())
