# Builds Kubernetes from Debian's source package, which has everything in it that it depends on. Runs in the root, in /src.
set -e
version=1.20.2
cd /src
export GO111MODULE=off GOCACHE=/src/cache GOPATH=/src/go CGO_ENABLED=0 GOFLAGS=
tree=/src/go/src/k8s.io/kubernetes
if [ ! -e "$tree" ]; then
    apt-get --quiet=2 -o APT::Sandbox::User=root update
    apt-get --quiet=2 -o APT::Sandbox::User=root source --download-only kubernetes
    mkdir -p "${tree%/*}"
    dpkg-source --no-check --extract kubernetes_*.dsc "$tree"
    # Its reflect2 is older than Go 1.18, which hands over a map's iterator in another way: reading any custom resource would crash the API.
    (
        cd "$tree/vendor/github.com/modern-go/reflect2"
        sed --in-place '
            s/m unsafe.Pointer) \*hiter/m unsafe.Pointer, it *hiter)/
            s/.*rest fields are ignored/t, h, buckets, bptr, overflow, oldoverflow unsafe.Pointer\
startBucket uintptr; offset uint8; wrapped bool; B, i uint8; bucket, checkBucket uintptr/' unsafe_link.go
        sed --in-place '
            /^func .*) UnsafeIterate(/ a it := new(hiter); mapiterinit(type2.rtype, *(*unsafe.Pointer)(obj), it)
            s/hiter: *mapiterinit(.*/hiter: it,/' unsafe_map.go
    )
fi
cd "$tree"

# The one file that is generated and not in the package.
packages=$(grep --recursive --files-with-matches --include='*.go' '+k8s:openapi-gen=true' pkg staging/src/k8s.io vendor/k8s.io |
    xargs --max-args=1 dirname | grep --invert-match --extended-regexp 'testdata|/test/|sample-|_examples|code-generator|kube-openapi' |
    sed 's#^staging/src/#k8s.io/kubernetes/vendor/#; s#^pkg/#k8s.io/kubernetes/pkg/#; s#^vendor/#k8s.io/kubernetes/vendor/#' |
    sort --unique | paste --serial --delimiters=,)
go run ./vendor/k8s.io/kube-openapi/cmd/openapi-gen -O zz_generated.openapi \
    --go-header-file hack/boilerplate/boilerplate.generatego.txt --output-base /src/go/src \
    --output-package k8s.io/kubernetes/pkg/generated/openapi --report-filename /dev/null -i "$packages"

# They would call themselves v0.0.0, and what asks for a version would refuse them.
flags="-s -w"
for place in pkg/version vendor/k8s.io/component-base/version vendor/k8s.io/client-go/pkg/version; do
    at=k8s.io/kubernetes/$place
    flags="$flags -X $at.gitVersion=v$version -X $at.gitMajor=1 -X $at.gitMinor=20"
done
mkdir -p /src/unfinished
go build -trimpath -ldflags "$flags" -o /src/unfinished/ ./cmd/kubelet ./cmd/kube-apiserver ./cmd/kube-controller-manager ./cmd/kube-scheduler
