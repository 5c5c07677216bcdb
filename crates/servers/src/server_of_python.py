# A read-only 9P server of a folder, of the library py9p: port, folder, dialect. For Python 2, which that library is for.
import os
import sys
from py9p import py9p


class Folder(object):
    def __init__(self, root, dotu):
        self.dotu = dotu
        self.paths = {}
        self.root = self.stat_of(root)

    def stat_of(self, path):
        s = os.stat(path)
        kind, mode = (py9p.QTDIR, py9p.DMDIR) if os.path.isdir(path) else (0, 0)
        qid = py9p.Qid(kind, 0, s.st_ino)
        self.paths[s.st_ino] = path
        times = (mode | 0o644, int(s.st_atime), int(s.st_mtime), s.st_size, os.path.basename(path))
        if self.dotu:
            return py9p.Dir(1, 0, 0, qid, *(times + ("u", "g", "u", "", 0, 0, 0)))
        return py9p.Dir(0, 0, 0, qid, *(times + ("u", "g", "u")))

    def walk(self, srv, req):
        path = self.paths[req.fid.qid.path]
        for name in req.ifcall.wname:
            path = os.path.join(path, name)
            if not os.path.exists(path):
                if not req.ofcall.wqid:
                    srv.respond(req, "file not found")
                    return
                break
            req.ofcall.wqid.append(self.stat_of(path).qid)
        srv.respond(req, None)

    def open(self, srv, req):
        if req.ifcall.mode & 3:
            srv.respond(req, "permission denied")
        else:
            srv.respond(req, None)

    def read(self, srv, req):
        path = self.paths[req.fid.qid.path]
        if os.path.isdir(path):
            # The library sends as many as fit. It cannot send names that are not of ASCII.
            names = [name for name in sorted(os.listdir(path)) if all(ord(c) < 128 for c in name)]
            req.ofcall.stat = [self.stat_of(os.path.join(path, name)) for name in names]
            srv.respond(req, None)
            return
        with open(path, "rb") as f:
            f.seek(req.ifcall.offset)
            req.ofcall.data = f.read(req.ifcall.count)
        srv.respond(req, None)

    def stat(self, srv, req):
        req.ofcall.stat.append(self.stat_of(self.paths[req.fid.qid.path]))
        srv.respond(req, None)

    def clunk(self, srv, req):
        srv.respond(req, None)


dotu = sys.argv[3] == "9P2000.u"
server = py9p.Server(listen=("127.0.0.1", int(sys.argv[1])), dotu=dotu)
server.mount(Folder(sys.argv[2], dotu))
server.serve()
